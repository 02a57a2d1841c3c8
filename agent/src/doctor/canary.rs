//! A prompt that goes the whole way: through the running gateway, or, where none runs, through an engine started for it.
//! What it took tells the speed of the model.

use super::finding::Finding;
use super::speed;
use crate::config::Config;
use crate::engine::{COMMANDS_MAX, EngineCommand, EngineReport, Supervisor};
use crate::status;
use crate::terminal::Progress;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tidegate_engine::fit::memory_needed;
use tidegate_engine::protocol::{Done, Run, Start};
use tidegate_schemas::{JobId, Message, Role};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

const TRIP: &str = "round trip";
const SPEED: &str = "speed";
/// What is asked. It is no secret.
pub(crate) const PROMPT: &str = "turn on the light in the hall";
/// Longest wait for an engine: a model of some GiB comes from a slow card.
const ENGINE_MAX: Duration = Duration::from_secs(150);
/// Longest wait for a gateway's own canary prompt: longer than that may live.
const CANARY_MAX: Duration = Duration::from_secs(75);
/// Runs whose tokens are counted: one answer of a small model is over too soon to be timed.
const RUNS: u64 = 8;
/// Tokens of each.
const RUN_TOKENS_MAX: u32 = 64;
/// Tokens from which a speed means something.
const TOKENS_LEAST: u64 = 20;

pub(super) fn all(config: &Config, model: Option<&Path>, runs: bool) -> Vec<Finding> {
    let Some(model) = model else {
        return vec![Finding::warning(TRIP, "not tried: there is no model that can be used", "mend the model first")];
    };
    let start = start(config, model);
    let weights = memory_needed(&start).map_or(0, |need| need.weights);
    match runs {
        true => running(config, weights),
        false => match crate::runtime::start() {
            Ok(runtime) => runtime.block_on(alone(config, start, weights)),
            Err(failure) => vec![Finding::fault(TRIP, failure.sentence(), "free some threads or memory")],
        },
    }
}

fn start(config: &Config, model: &Path) -> Start {
    let engine = &config.engine;
    Start {
        context_tokens: engine.context_tokens,
        slots: engine.slots,
        threads: engine.threads,
        memory_bytes_max: engine.memory_bytes_max,
        gpu_layers: engine.gpu_layers,
        cache: engine.cache,
        prefix_bytes_max: engine.prefix_bytes_max,
        ..Start::new(model)
    }
}

/// Through admission, disk, engine and back to the disk.
fn running(config: &Config, weights: u64) -> Vec<Finding> {
    const NEXT: &str = "look at `tidegate status` and the gateway's log";
    let mut progress = Progress::new("a canary prompt");
    let asked = status::ask_patiently(&config.control, r#"{"op":"canary"}"#, CANARY_MAX, &mut |deadline| {
        progress.until(deadline);
    });
    drop(progress);
    let told = match asked {
        Ok(told) => told,
        Err(failure) => return vec![Finding::fault(TRIP, failure.sentence(), NEXT)],
    };
    let ms = |path: &str| status::at(&told, path).as_u64();
    match (told.get("error").and_then(Value::as_str), ms("/total_ms")) {
        (Some(error), _) => vec![Finding::fault(TRIP, format!("the canary prompt: {error}"), NEXT)],
        (None, Some(total)) => {
            let accepted = ms("/accepted_ms").unwrap_or(total);
            let what = format!("a canary prompt was on disk after {accepted} ms and answered after {total} ms");
            let measured = status::at(&told, "/decode_tokens_per_s").as_f64().filter(|speed| *speed > 0.0);
            let speed = measured.map(|measured| judged(measured, speed::expected(weights)));
            std::iter::once(Finding::ok(TRIP, what)).chain(speed).collect()
        }
        (None, None) => vec![Finding::fault(TRIP, "the gateway's word about the canary is not understood", NEXT)],
    }
}

/// Without a gateway: the engine by itself.
async fn alone(config: &Config, start: Start, weights: u64) -> Vec<Finding> {
    const NEXT: &str = "try another model with engine.model, or fewer slots and a smaller context";
    let begin = Instant::now();
    let (orders, ear) = mpsc::channel(COMMANDS_MAX);
    let (out, mut reports) = mpsc::channel(COMMANDS_MAX);
    let supervisor = tokio::spawn(Supervisor::new(start, ear, out).run());
    let deadline = begin + ENGINE_MAX;
    let ended = timeout_at(deadline.into(), ask(config, &orders, &mut reports)).await;
    drop((orders, reports));
    // The child is killed with its supervisor if it does not end by itself.
    let _ = tokio::time::timeout(Duration::from_secs(5), supervisor).await;
    match ended {
        Err(_) => {
            vec![Finding::fault(TRIP, format!("the engine did not answer within {} s", ENGINE_MAX.as_secs()), NEXT)]
        }
        Ok(Err(why)) => vec![Finding::fault(TRIP, format!("the engine: {why}"), NEXT)],
        Ok(Ok((first, tokens, spent))) => {
            let what = format!("the engine by itself loaded and answered a canary prompt in {} ms", first.as_millis());
            let mut findings = vec![Finding::ok(TRIP, what)];
            if tokens >= TOKENS_LEAST && spent > Duration::ZERO {
                findings.push(judged(tokens as f64 / spent.as_secs_f64(), speed::expected(weights)));
            }
            findings
        }
    }
}

/// Time to the first answer; tokens of all answers and what they took.
async fn ask(
    config: &Config,
    orders: &mpsc::Sender<EngineCommand>,
    reports: &mut mpsc::Receiver<EngineReport>,
) -> Result<(Duration, u64, Duration), String> {
    let (begin, mut first, mut child) = (Instant::now(), None, 0);
    let (mut done, mut tokens, mut spent) = (0, 0, Duration::ZERO);
    let deadline = begin + ENGINE_MAX;
    let mut progress = Progress::new("loading and asking the model");
    let again = |child, job| orders.try_send(EngineCommand::run(child, run(config, job))).map_err(|e| e.to_string());
    while done < RUNS {
        progress.until(deadline);
        let Ok(report) = tokio::time::timeout(Duration::from_millis(250), reports.recv()).await else { continue };
        match report.ok_or("it ended")? {
            EngineReport::Ready { child: number, .. } => {
                child = number;
                again(child, done)?;
            }
            EngineReport::Done(answer) => {
                let Done { completion_tokens, decode_ms, .. } = *answer;
                first.get_or_insert(begin.elapsed());
                // The time begins with the first token.
                tokens += u64::from(completion_tokens.saturating_sub(1));
                spent += Duration::from_millis(decode_ms);
                done += 1;
                again(child, done)?;
            }
            EngineReport::Gone { why, .. } => return Err(why),
            EngineReport::Failed(_, fault) => return Err(format!("{fault:?}")),
            EngineReport::Token(..) | EngineReport::Speed { .. } | EngineReport::Handover(_) => {}
        }
    }
    Ok((first.unwrap_or_default(), tokens, spent))
}

/// The canary as the default task; freely, so that an answer is as long as it may be.
fn run(config: &Config, number: u64) -> Run {
    let task = config.tasks.get(&config.default_task);
    Run {
        job: JobId(number),
        system: task.map(|task| task.spec.system.clone()).unwrap_or_default(),
        messages: vec![Message { role: Role::User, content: PROMPT.into() }],
        schema: task.and_then(|task| task.spec.schema.clone()),
        max_tokens: RUN_TOKENS_MAX,
        stream: false,
        floor: None,
    }
}

fn judged(measured: f64, expected: f64) -> Finding {
    let what = format!(
        "the model writes {measured:.0} tokens per second, this machine's memory would allow about {expected:.0}"
    );
    if measured < expected * speed::SLOW_SHARE {
        let next = "see whether something else computes, and whether heat or the power supply slows the processor; \
                    engine.threads should be the number of cores";
        return Finding::warning(SPEED, what, next);
    }
    Finding::ok(SPEED, what)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_third_of_what_is_expected_is_too_slow() {
        assert_eq!(judged(34.0, 100.0).level, Level::Ok);
        assert_eq!(judged(33.0, 100.0).level, Level::Warning);
    }
}
