//! The answer to `fetch` on the control socket: where a prompt is, or what became of it. Without leave no text of
//! prompt or answer, nor an error's message, which may quote one.

use super::clock;
use super::hub::Hub;
use super::message::Text;
use serde_json::{Value, json};
use tidegate_core::{Standing, Whereabouts};
use tidegate_schemas::{Body, DeviceId, Encoding, Frame, Input, PROMPT_BYTES_MAX, PromptId, cbor};
use tidegate_spool::{OutcomeRecord, Stamp};
use tokio::sync::oneshot;

impl Hub {
    /// Answers where the prompt with this id of this device is.
    pub(super) fn look(&self, device: &DeviceId, id: &PromptId, text: Text, reply: oneshot::Sender<Value>) {
        match self.dispatcher.look(device, id, clock::now()) {
            None => drop(reply.send(unknown(device, id))),
            Some(Whereabouts::Open(standing)) => drop(reply.send(open(device, id, &standing, text))),
            Some(Whereabouts::Ended(job)) => {
                let gone = unknown(device, id);
                self.hands.spool.outcome(job, move |record| {
                    let _ = reply.send(record.map_or(gone, |record| ended(&record, text)));
                });
            }
        }
    }
}

fn unknown(device: &DeviceId, id: &PromptId) -> Value {
    json!({ "error": format!("id {id} of device {device} is not known (any more)") })
}

/// A prompt without an outcome.
fn open(device: &DeviceId, id: &PromptId, standing: &Standing, text: Text) -> Value {
    let mut answer = json!({ "device": device, "id": id, "job": standing.job, "state": standing.stage, "final": false,
        "task": standing.task, "reason": standing.reason, "runs": standing.runs, "age_ms": standing.age_ms,
        "deadline_left_ms": standing.left_ms });
    if text == Text::Shown {
        answer["prompt"] = match &standing.prompt.input {
            Input::Input(text) => json!(text.reveal()),
            Input::Messages(list) => json!(list),
        };
    }
    answer
}

/// A stored outcome.
fn ended(record: &OutcomeRecord, text: Text) -> Value {
    let mut answer = json!({ "device": record.device, "id": record.id, "job": record.job, "final": true,
        "encoding": record.encoding, "bytes": record.frame.len(), "delivered": record.released,
        "age_ms": record.stamp.age_ms(&Stamp::now()) });
    let (state, facts, body) = contents(record);
    answer["state"] = json!(state);
    if let (Some(answer), Value::Object(facts)) = (answer.as_object_mut(), facts) {
        answer.extend(facts);
    }
    if let (Text::Shown, Some((key, body))) = (text, body) {
        answer[key] = body;
    }
    answer
}

/// How it ended, what can be said of it, and its text.
fn contents(record: &OutcomeRecord) -> (&'static str, Value, Option<(&'static str, Value)>) {
    let frame: Option<Frame> = match record.encoding {
        Encoding::Json => serde_json::from_slice(&record.frame).ok(),
        // The frame was checked when it was made; this is only the decoder's bound.
        Encoding::Cbor => cbor::from_slice(&record.frame, 2 * PROMPT_BYTES_MAX).ok(),
        Encoding::Text => return bare(&String::from_utf8_lossy(&record.frame)),
    };
    match frame {
        Some(Frame::Answer(answer)) => {
            let facts = json!({ "route": answer.route, "reason": answer.reason, "confidence": answer.confidence,
                "model": answer.model, "usage": answer.usage, "timing": answer.timing });
            let body = match answer.body {
                Body::Text(text) => ("text", json!(text.reveal())),
                Body::Json(json) => ("json", json.0),
            };
            ("answered", facts, Some(body))
        }
        Some(Frame::Error(error)) => ("failed", json!({ "code": error.code }), Some(("message", json!(error.message)))),
        Some(Frame::Accepted(_) | Frame::Token(_)) | None => ("unreadable", Value::Null, None),
    }
}

/// The one line of a bare-text device: `!code: message` is an error.
fn bare(line: &str) -> (&'static str, Value, Option<(&'static str, Value)>) {
    match line.strip_prefix('!').and_then(|rest| rest.split_once(": ")) {
        Some((code, message)) => ("failed", json!({ "code": code }), Some(("message", json!(message)))),
        None => ("answered", Value::Null, Some(("text", json!(line)))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_schemas::{ContentHash, ErrorCode, ErrorFrame, JobId};

    fn failed(encoding: Encoding) -> OutcomeRecord {
        let message = "word".to_owned();
        let error = ErrorFrame { id: None, code: ErrorCode::Expired, message, retry_after_ms: None };
        OutcomeRecord {
            job: JobId(3),
            device: "d".parse().unwrap(),
            id: Some("b-1".parse().unwrap()),
            hash: ContentHash([0; 16]),
            encoding,
            frame: encoding.frame(&Frame::Error(error)).unwrap(),
            notice: None,
            released: true,
            reach: tidegate_spool::Reach::Cloud,
            stamp: Stamp::now(),
            reply: tidegate_schemas::Reply::default(),
        }
    }

    #[test]
    fn an_error_is_told_by_its_code_and_its_message_on_demand() {
        for encoding in [Encoding::Json, Encoding::Cbor, Encoding::Text] {
            let hidden = ended(&failed(encoding), Text::Hidden);
            assert_eq!((&hidden["state"], &hidden["code"]), (&json!("failed"), &json!("expired")), "{encoding:?}");
            assert!(!hidden.to_string().contains("word"), "{hidden}");
            assert_eq!(ended(&failed(encoding), Text::Shown)["message"], "word", "{encoding:?}");
        }
    }
}
