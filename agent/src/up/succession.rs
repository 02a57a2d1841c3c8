//! `model` on the control socket: another model is tried beside the one that serves, and takes over if it holds.
//!
//! Invariants: one at a time; until the supervisor has the new engine, every failure leaves all as it was, the choice on
//! disk included; what runs at the old engine ends there, and is judged as its own.

use super::control::Desk;
use super::hub::Hub;
use super::message::Input;
use super::templates::engine_start;
use super::trial;
use crate::chosen::{self, Choice, NamedBy};
use crate::engine::{EngineCommand, Handover, Successor};
use crate::learned::Learned;
use crate::{calibration, room};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tidegate_core::Event;
use tidegate_core::knowledge::Knowledge;
use tidegate_engine::fit::memory_needed;
use tidegate_engine::protocol::Start;
use tidegate_schemas::{CardModel, ModelName, TaskName};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

const MIB: u64 = 1024 * 1024;

/// The model that serves, and who named it.
#[derive(Debug, Clone)]
pub(super) struct Serving {
    /// Its file.
    pub(super) file: PathBuf,
    /// Who named it.
    pub(super) named_by: NamedBy,
    /// The child before, while it ends what it began.
    pub(super) retiring: Option<u64>,
}

/// What is known of a model that is to take over.
pub(super) struct Succession {
    serving: Serving,
    known: BTreeMap<TaskName, Knowledge>,
    learned: Learned,
    /// Waits for the name of the model before.
    reply: oneshot::Sender<Result<Option<ModelName>, String>>,
}

/// The answer to `model`: this file is to serve, or the configured one.
pub(super) async fn answer(file: Option<PathBuf>, desk: &Desk) -> Value {
    let Ok(_alone) = desk.succession.try_acquire() else {
        return json!({ "error": "another model is being tried at this moment" });
    };
    match change(file, desk).await {
        Ok(told) => told,
        Err(why) => {
            warn!(%why, "the model stays");
            json!({ "error": why })
        }
    }
}

async fn change(file: Option<PathBuf>, desk: &Desk) -> Result<Value, String> {
    let config = &desk.config;
    let (path, named_by) = match file {
        Some(path) if path.is_absolute() => (path, NamedBy::ModelUse),
        Some(path) => return Err(format!("{}: the path is not absolute", path.display())),
        None => chosen::configured(config).map_err(|failure| failure.sentence().to_owned())?,
    };
    info!(file = %path.display(), "trying another model");
    let start = engine_start(config, path.clone());
    let weighed = start.clone();
    spawn_blocking(move || fits(&weighed)).await.map_err(|_| stopping())??;
    let mut successor = Successor::load(start).await?;
    let canaries = trial::all(&mut successor, config).await?;
    let sha256 = successor.loaded.sha256.clone();
    let calibrated = calibration::read(&calibration::path_of(&path), &sha256).is_ok();
    let mut known = calibration::load(&path, &sha256);
    let learned = Learned::open(&config.data_dir, &sha256);
    learned.apply(&mut known);
    let before = chosen::choice(config).unwrap_or_default();
    let choice = (named_by == NamedBy::ModelUse).then(|| Choice::new(path.clone(), sha256, config));
    chosen::keep(&config.data_dir, choice.as_ref())?;
    let model = successor.loaded.model.clone();
    let (reply, taken) = oneshot::channel();
    let serving = Serving { file: path.clone(), named_by, retiring: None };
    let succession = Succession { serving, known, learned, reply };
    let _ = desk.inputs.send(Input::Succeed(Box::new((successor, succession)))).await;
    match taken.await.unwrap_or_else(|_| Err(stopping())) {
        Ok(old) => Ok(json!({ "model": model, "before": old, "file": path, "named_by": named_by,
            "canaries": canaries, "calibrated": calibrated })),
        Err(why) => {
            chosen::keep(&config.data_dir, before.as_ref())?;
            Err(why)
        }
    }
}

fn stopping() -> String {
    "the gateway is stopping".to_owned()
}

/// Whether there is room for it beside the one that serves.
fn fits(start: &Start) -> Result<(), String> {
    let need = memory_needed(start).map_err(|error| error.to_string())?.total;
    roomy(&start.model_path, need, room::available())
}

fn roomy(path: &Path, need: u64, free: Option<u64>) -> Result<(), String> {
    match free {
        Some(free) if need > free => Err(format!(
            "model {}: it needs about {} MiB of memory beside the one that serves, {} MiB are available",
            path.display(),
            need.div_ceil(MIB),
            free / MIB
        )),
        _ => Ok(()),
    }
}

impl Hub {
    /// A model that was tried is to take over.
    pub(super) fn succeed(&mut self, successor: Successor, succession: Succession) {
        let refused = if self.view.draining {
            Some(stopping())
        } else if self.view.serving.retiring.is_some() || self.succession.is_some() {
            Some("the model before still ends what it began; try again when it has".to_owned())
        } else {
            self.hands.successors.try_send(successor).err().map(|_| stopping())
        };
        match refused {
            Some(why) => {
                let _ = succession.reply.send(Err(why));
            }
            None => self.succession = Some(succession),
        }
    }

    /// One engine follows another.
    pub(super) fn handover(&mut self, handover: Handover) {
        match handover {
            Handover::TakenOver { child, pid, loaded, before } => {
                self.view.child = Some(child);
                self.view.engine_pid = pid;
                self.view.engine_fault = None;
                let old = self.view.model.take().map(|card| card.name);
                let model = loaded.model.clone();
                let (sha256, context_tokens) = (loaded.sha256, loaded.context_tokens);
                self.view.model = Some(CardModel { name: loaded.model, sha256, context_tokens });
                self.taken_over(model, old, before);
                if let Some(before) = before {
                    self.retire(before);
                }
                self.tell();
            }
            Handover::Over { child } => self.retired(child),
            Handover::Lost { child, why } => {
                self.view.happenings.add("engine", format!("the engine before is gone: {why}"));
                self.step(Event::OldEngineGone);
                self.retired(child);
            }
        }
    }

    fn taken_over(&mut self, model: ModelName, old: Option<ModelName>, before: Option<u64>) {
        let Some(succession) = self.succession.take() else { return };
        let Succession { serving, known, learned, reply } = succession;
        // What was learned of the old one, before its place is taken.
        self.save_learned();
        self.learned = learned;
        self.view.serving = Serving { retiring: before, ..serving };
        self.view.faults.retain(|fault| !fault.starts_with(PASSED_OVER));
        let message = match &old {
            Some(old) => format!("{model} serves in place of {old}"),
            None => format!("{model} serves"),
        };
        info!(%model, file = %self.view.serving.file.display(), "another model serves");
        self.step(Event::EngineReplaced { model, known: Box::new(known) });
        for (task, why) in self.dispatcher.unsupported() {
            warn!(%task, %why, "no answer of this task is kept on its promise");
        }
        self.announce("model", message);
        let _ = reply.send(Ok(old));
    }

    /// After everything that was meant for it.
    fn retire(&self, child: u64) {
        let (engine, last) = (self.hands.engine.clone(), EngineCommand::retire(child));
        if let Err(full) = engine.try_send(last) {
            // It must come: without it the old engine would stay.
            let last = full.into_inner();
            tokio::spawn(async move {
                let _ = engine.send(last).await;
            });
        }
    }

    fn retired(&mut self, child: u64) {
        if self.view.serving.retiring == Some(child) {
            self.view.serving.retiring = None;
        }
    }
}

/// How the fault begins that a choice could not be honoured at the start.
const PASSED_OVER: &str = "the model that `tidegate model use` chose";

/// The fault that a choice could not be honoured at the start.
pub(super) fn passed_over(file: &Path, why: &str) -> String {
    format!("{PASSED_OVER}, {}, is passed over for the configured one: {why}", file.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_beside_the_other_is_said_with_both_figures() {
        let path = Path::new("/m/a.gguf");
        assert_eq!(roomy(path, 10 * MIB, None), Ok(()));
        assert_eq!(roomy(path, 10 * MIB, Some(10 * MIB)), Ok(()));
        let why = roomy(path, 10 * MIB + 1, Some(10 * MIB)).unwrap_err();
        assert!(why.contains("needs about 11 MiB") && why.contains("10 MiB are available"), "{why}");
    }
}
