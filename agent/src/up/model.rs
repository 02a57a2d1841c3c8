//! Between the hub and the engine's supervisor: what comes from the model becomes events.

use super::hub::Hub;
use crate::engine::{EngineReport, Loaded};
use crate::{memory, schema};
use sha2::{Digest, Sha256};
use tidegate_core::early::Trail;
use tidegate_core::{Completion, EngineFault, Event, Signals};
use tidegate_engine::protocol::{Done, Fault, Stop};
use tidegate_schemas::{CardModel, Timing, Usage};

impl Hub {
    /// Something of the engine.
    pub(super) fn engine(&mut self, report: EngineReport) {
        match report {
            EngineReport::Ready { child, pid, loaded: Loaded { model, sha256, context_tokens } } => {
                self.view.child = Some(child);
                self.view.engine_pid = pid;
                self.view.engine_fault = None;
                self.view.happenings.add("engine", format!("the engine is ready with {model}"));
                self.view.model = Some(CardModel { name: model.clone(), sha256, context_tokens });
                self.step(Event::EngineReady { model, context_tokens });
                self.tell();
                if child == 1 {
                    // The start is over. Reading the list of mappings takes milliseconds.
                    tokio::task::spawn_blocking(memory::forget_start);
                }
            }
            EngineReport::Gone { was_ready, why } => {
                self.view.child = None;
                self.view.engine_pid = 0;
                self.view.engine_restarts += 1;
                self.view.happenings.add("engine", format!("the engine is gone: {why}"));
                self.view.engine_fault = Some(why);
                if was_ready {
                    self.step(Event::EngineGone);
                }
                self.tell();
            }
            EngineReport::Speed { percent } => self.speed(percent),
            EngineReport::Token(job, text) => self.step(Event::Token { job, text }),
            EngineReport::Failed(job, fault) => self.step(Event::InferenceFailed { job, fault: engine_fault(fault) }),
            EngineReport::Done(done) => self.done(&done),
            EngineReport::Handover(handover) => self.handover(handover),
        }
    }

    /// The engine fell behind its own speed, or is back. Predicted times follow what is measured, and with them what runs
    /// here and what goes to the cloud; people hear of it by an event.
    fn speed(&mut self, percent: u8) {
        let said = if percent < 100 {
            format!("the engine writes at {percent} % of its earlier speed: heat, power or another load")
        } else {
            "the engine is as fast as before".to_owned()
        };
        tracing::warn!(percent, "{said}");
        self.announce("speed", said);
    }

    /// An answer counts when it ended by itself and fits its task.
    fn done(&mut self, done: &Done) {
        let job = done.job;
        let task = self.facts.get(&job).and_then(|f| f.task.as_ref()).unwrap_or(&self.default_task);
        let body = schema::body(&done.text, self.checkers.get(task)).filter(|_| done.stop == Stop::End);
        let Some(body) = body else {
            return self.step(Event::InferenceFailed { job, fault: EngineFault::Cut });
        };
        let completion = Completion {
            body,
            signals: signals(done),
            usage: Usage { prompt_tokens: done.prompt_tokens, completion_tokens: done.completion_tokens },
            timing: Timing { prefill_ms: done.prefill_ms, decode_ms: done.decode_ms, ..Timing::default() },
        };
        self.step(Event::Completed { job, completion: Box::new(completion) });
    }
}

/// The signals of an answer as the core has them; the bytes of its prompt are the caller's to add.
pub(crate) fn signals(done: &Done) -> Signals {
    let from = &done.signals;
    Signals {
        sum_logprob: from.sum_logprob,
        min_logprob: from.min_logprob,
        mean_logprob: from.mean_logprob,
        first_margin: from.first_margin,
        first_entropy: from.first_entropy,
        tokens: from.tokens,
        low_logprob: from.low_logprob,
        median_logprob: from.median_logprob,
        second_margin: from.second_margin,
        mean_margin: from.mean_margin,
        min_margin: from.min_margin,
        mean_entropy: from.mean_entropy,
        max_entropy: from.max_entropy,
        first_energy: from.first_energy,
        mean_removed: from.mean_removed,
        max_removed: from.max_removed,
        forced: from.forced,
        prompt_tokens: done.prompt_tokens,
        prompt_bytes: 0,
        answer: answer_number(done.text.reveal()),
        trail: (!done.logprobs.is_empty()).then(|| Trail::of(&done.logprobs, from.sum_logprob)),
    }
}

/// Stands for an answer, whatever its case and the white space around it: the beginning of its hash, never 0.
pub(crate) fn answer_number(text: &str) -> u64 {
    let hash = Sha256::digest(text.trim().to_lowercase());
    let first = hash.iter().take(8).rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    first.max(1)
}

fn engine_fault(fault: Fault) -> EngineFault {
    match fault {
        Fault::TooLong { tokens, context_tokens } => EngineFault::TooLong { tokens, context_tokens },
        Fault::Cut => EngineFault::Cut,
        Fault::Hopeless { tokens } => EngineFault::Hopeless { tokens },
        Fault::Aborted => EngineFault::Aborted,
        Fault::Schema(why) | Fault::Other(why) => EngineFault::Other(why),
    }
}
