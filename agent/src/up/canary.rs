//! `canary` on the control socket: a prompt of `doctor` that goes the way of any other, from admission to a stored outcome,
//! and is then forgotten. It never leaves the host, and no session of a device is sent it.

use super::control::Desk;
use super::message::{Input, Query, Text};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_broker::Verdict;
use tidegate_schemas::{DeadlineMs, DeviceId, Encoding, JobId, Prompt, PromptId, Reply};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// The device that asks. Clients without a name could take it, on loopback; they would see this prompt's answer.
const DEVICE: &str = "local-doctor";
/// What is asked.
const PROMPT: &str = crate::doctor::PROMPT;
/// Longest wait for the outcome, in milliseconds: some prompts of others may come first.
const WAIT_MS: u64 = 60_000;
/// Between two looks for the outcome.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Size that quotas see.
const BYTES: u32 = 64;

/// Asks, waits, and tells how long each step took.
pub(super) async fn answer(desk: &Desk) -> Value {
    let (begin, device, id) = (Instant::now(), device(), id());
    let prompt =
        Prompt { id: Some(id.clone()), local: true, deadline_ms: DeadlineMs::new(WAIT_MS), ..Prompt::bare(PROMPT) };
    let (reply, verdict) = oneshot::channel();
    let (encoding, reply_to) = (Encoding::Json, Reply::default());
    let ask =
        Input::Prompt { device: device.clone(), prompt: Arc::new(prompt), encoding, bytes: BYTES, reply_to, reply };
    let _ = desk.inputs.send(ask).await;
    match verdict.await {
        Ok(Verdict::Kept { .. }) => {}
        Ok(Verdict::Refused { code, message, .. }) => return json!({ "error": format!("refused: {code}: {message}") }),
        Err(_) => return stopping(),
    }
    let accepted = begin.elapsed();
    let found = loop {
        let Some(found) =
            query(desk, |reply| Input::Query(Query::Outcome(device.clone(), id.clone(), Text::Hidden), reply)).await
        else {
            return stopping();
        };
        if found["final"] == true || found.get("error").is_some() {
            break found;
        }
        sleep(LOOK_EVERY).await;
    };
    let total = begin.elapsed();
    if let Some(job) = found["job"].as_u64() {
        // Nobody subscribes for it: without this it would wait for as long as outcomes are kept.
        query(desk, |reply| Input::Query(Query::Discard(device, JobId(job)), reply)).await;
    }
    told(&found, accepted, total)
}

fn told(found: &Value, accepted: Duration, total: Duration) -> Value {
    if found["state"] != "answered" {
        let why = found.get("error").or(found.get("code")).or(found.get("state")).unwrap_or(&Value::Null);
        return json!({ "error": format!("it was not answered: {}", crate::status::word(why)) });
    }
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let count = |path: &str| found.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let (tokens, decode_ms) = (count("/usage/completion_tokens"), count("/timing/decode_ms"));
    // The time begins with the first token, and below some milliseconds the quotient says nothing.
    let speed = (decode_ms >= 5).then(|| tokens.saturating_sub(1) as f64 * 1000.0 / decode_ms as f64);
    json!({ "accepted_ms": ms(accepted), "total_ms": ms(total), "route": found["route"], "model": found["model"],
        "decode_tokens_per_s": speed, "usage": found["usage"], "timing": found["timing"] })
}

async fn query(desk: &Desk, ask: impl FnOnce(oneshot::Sender<Value>) -> Input) -> Option<Value> {
    let (reply, answer) = oneshot::channel();
    let _ = desk.inputs.send(ask(reply)).await;
    answer.await.ok()
}

fn stopping() -> Value {
    json!({ "error": "the gateway is stopping" })
}

fn device() -> DeviceId {
    DEVICE.parse().expect("letters and a hyphen are an identifier")
}

/// One that was not used before.
fn id() -> PromptId {
    let random = getrandom::u64().unwrap_or(0);
    format!("doctor-{random:016x}").parse().expect("letters, digits and a hyphen are an identifier")
}
