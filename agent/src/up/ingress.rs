//! From the door to the hub: payloads become prompts, or refusals that name what is wrong.

use super::crossing::Crossings;
use super::message::{Input, Report};
use super::onlookers::is_page;
use crate::intake::Outcomes;
use crate::trace::hop;
use bytes::Bytes;
use std::sync::Arc;
use tidegate_broker::{Forwarding, Keeper, Kept, Outgoing, Submission, Verdict};
use tidegate_schemas::{
    DEADLINE_MS_MAX, DeadlineMs, DecodeError, DeviceId, Encoding, ErrorCode, ErrorFrame, Frame, JobId, Prompt,
    PromptId, decode_control, decode_prompt,
};
use tokio::sync::{mpsc, oneshot};
use tracing::info;

/// The door's way to the hub.
pub(super) struct Ingress {
    /// For what waits for an answer.
    pub(super) inputs: mpsc::Sender<Input>,
    /// For what does not.
    pub(super) reports: mpsc::UnboundedSender<Report>,
    /// For what crosses to the central broker by rule.
    pub(super) crossing: Crossings,
}

impl Keeper for Ingress {
    fn prompt(&self, submission: Submission) -> Kept<Verdict> {
        let inputs = self.inputs.clone();
        Box::pin(async move {
            let Submission { device, payload, expiry_ms, reply: reply_to, traceparent } = submission;
            let (prompt, encoding) = match decode_prompt(&payload) {
                Ok(found) => found,
                Err(error) => return refused(&payload, &error),
            };
            if is_page(&device) {
                return not_for_clients(prompt.id, encoding);
            }
            let prompt = with_trace(with_expiry(prompt, expiry_ms), traceparent.as_deref());
            let prompt = Arc::new(entered(prompt, &device));
            let bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            let id = prompt.id.clone();
            let ask = |reply| Input::Prompt { device, prompt, encoding, bytes, reply_to, reply };
            verdict(&inputs, (id, encoding), ask).await
        })
    }

    fn control(&self, submission: Submission) -> Kept<Verdict> {
        let inputs = self.inputs.clone();
        Box::pin(async move {
            let Submission { device, payload, reply: reply_to, .. } = submission;
            let (control, encoding) = match decode_control(&payload) {
                Ok(found) => found,
                Err(error) => return refused(&payload, &error),
            };
            let id = Some(control.id.clone());
            let ask = |reply| Input::Control { device, control, encoding, reply_to, reply };
            verdict(&inputs, (id, encoding), ask).await
        })
    }

    fn forward(&self, publish: Forwarding<'_>) -> Option<Kept<Result<(), &'static str>>> {
        self.crossing.take(publish, &self.reports)
    }

    fn pending(&self, device: &DeviceId, after: Option<JobId>, max: usize) -> Kept<Vec<Outgoing>> {
        let (inputs, device) = (self.inputs.clone(), device.clone());
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            // A hub that has ended has nothing to deliver any more.
            let _ = inputs.send(Input::Pending { device, after, max, reply }).await;
            answer.await.unwrap_or_default()
        })
    }

    fn released(&self, device: &DeviceId, job: JobId) {
        // After the hub's end the outcome stays unreleased and is sent once more after the start: at least once.
        let _ = self.reports.send(Report::Released(device.clone(), job));
    }
}

impl Outcomes for Ingress {
    fn waiting(&self, after: Option<JobId>, max: usize) -> Kept<Vec<(DeviceId, Outgoing)>> {
        let inputs = self.inputs.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let _ = inputs.send(Input::Waiting { after, max, reply }).await;
            answer.await.unwrap_or_default()
        })
    }

    fn intake(&self, fault: Option<String>) {
        let _ = self.reports.send(Report::Intake(fault));
    }
}

/// What the hub says. Where it has ended, a refusal that names the message: at 3.1.1 a PUBACK follows, and only the frame
/// before it tells the device that nothing was kept.
async fn verdict(
    inputs: &mpsc::Sender<Input>,
    (id, encoding): (Option<PromptId>, Encoding),
    ask: impl FnOnce(oneshot::Sender<Verdict>) -> Input,
) -> Verdict {
    let (reply, answer) = oneshot::channel();
    let _ = inputs.send(ask(reply)).await;
    match answer.await {
        Ok(verdict) => verdict,
        Err(_) => refusal(encoding, error(id, ErrorCode::Busy, "the gateway is stopping".to_owned())),
    }
}

/// The page is a device that lives in this process.
fn not_for_clients(id: Option<PromptId>, encoding: Encoding) -> Verdict {
    let message = "this device is the gateway's own page".to_owned();
    refusal(encoding, error(id, ErrorCode::NotAllowed, message))
}

/// A smaller Message Expiry wins over the deadline.
fn with_expiry(prompt: Prompt, expiry_ms: Option<u64>) -> Prompt {
    let expiry = expiry_ms.and_then(|ms| DeadlineMs::new(ms.clamp(1, DEADLINE_MS_MAX)));
    let deadline_ms = match (prompt.deadline_ms, expiry) {
        (Some(deadline), Some(expiry)) => Some(deadline.min(expiry)),
        (deadline, expiry) => deadline.or(expiry),
    };
    Prompt { deadline_ms, ..prompt }
}

/// The user property counts where the envelope says nothing. One that is none is left out, as W3C Trace Context 1, 2.3
/// wants it.
fn with_trace(prompt: Prompt, property: Option<&str>) -> Prompt {
    let traceparent = prompt.traceparent.clone().or_else(|| property?.parse().ok());
    Prompt { traceparent, ..prompt }
}

/// The door's hop of a trace: what came is told with the device, what goes on is ours.
fn entered(prompt: Prompt, device: &DeviceId) -> Prompt {
    let Some(came) = &prompt.traceparent else { return prompt };
    let trace = hop(came);
    info!(%device, %trace, parent = came.parent_id(), "a prompt came");
    Prompt { traceparent: Some(trace), ..prompt }
}

/// The refusal of a payload that is no message, written as the payload seems to be, else as JSON.
fn refused(payload: &[u8], wrong: &DecodeError) -> Verdict {
    let (id, code) = match wrong {
        DecodeError::TooLarge { .. } => (None, ErrorCode::TooLarge),
        DecodeError::Field { id, .. } => (id.clone(), ErrorCode::Invalid),
        DecodeError::Empty | DecodeError::Unknown { .. } => (None, ErrorCode::Invalid),
    };
    let encoding = Encoding::of(payload).unwrap_or(Encoding::Json);
    refusal(encoding, error(id, code, wrong.to_string()))
}

fn error(id: Option<PromptId>, code: ErrorCode, message: String) -> ErrorFrame {
    ErrorFrame { id, code, message, retry_after_ms: None }
}

/// A refusal with its frame.
pub(super) fn refusal(encoding: Encoding, error: ErrorFrame) -> Verdict {
    let (code, message) = (error.code, error.message.clone());
    let frame = encoding.frame(&Frame::Error(error)).map(Bytes::from).unwrap_or_default();
    Verdict::Refused { code, message, frame }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_deadline_and_expiry_counts() {
        let check = |deadline: Option<u64>, expiry: Option<u64>, expect: Option<u64>| {
            let deadline_ms = deadline.and_then(DeadlineMs::new);
            let prompt = with_expiry(Prompt { deadline_ms, ..Prompt::bare("x") }, expiry);
            assert_eq!(prompt.deadline_ms.map(DeadlineMs::get), expect, "{deadline:?} {expiry:?}");
        };
        check(None, None, None);
        check(Some(500), None, Some(500));
        check(None, Some(700), Some(700));
        check(Some(500), Some(700), Some(500));
        check(Some(900), Some(700), Some(700));
        check(None, Some(0), Some(1));
        check(None, Some(u64::MAX), Some(DEADLINE_MS_MAX));
    }

    #[test]
    fn the_trace_of_the_envelope_wins_and_a_bad_property_is_left_out() {
        let traced = |id: char| format!("00-{}-b7ad6b7169203331-01", id.to_string().repeat(32));
        let check = |own: Option<String>, property: Option<String>, expect: Option<String>| {
            let traceparent = own.map(|own| own.parse().unwrap());
            let prompt = with_trace(Prompt { traceparent, ..Prompt::bare("x") }, property.as_deref());
            assert_eq!(prompt.traceparent.map(|t| t.to_string()), expect);
        };
        check(None, None, None);
        check(None, Some(traced('a')), Some(traced('a')));
        check(Some(traced('b')), Some(traced('a')), Some(traced('b')));
        check(None, Some("nonsense".to_owned()), None);
    }

    #[tokio::test]
    async fn a_hub_that_has_ended_refuses_by_id() {
        let (inputs, ended) = mpsc::channel(1);
        drop(ended);
        let id: PromptId = "a-7".parse().unwrap();
        let device: DeviceId = "local-1".parse().unwrap();
        let ask = |reply| Input::Pending { device, after: None, max: 1, reply: hold(reply) };
        let verdict = verdict(&inputs, (Some(id.clone()), Encoding::Json), ask).await;
        let Verdict::Refused { code, frame, .. } = verdict else { panic!("kept") };
        let said: Frame = serde_json::from_slice(&frame).unwrap();
        assert_eq!((code, said.id()), (ErrorCode::Busy, Some(&id)));
    }

    /// Some input, with whose end that of the verdict comes.
    fn hold(reply: oneshot::Sender<Verdict>) -> oneshot::Sender<Vec<Outgoing>> {
        drop(reply);
        oneshot::channel().0
    }

    #[test]
    fn refusals_name_what_is_wrong_and_never_the_text() {
        let check = |payload: &[u8], code: ErrorCode, expect: &str| {
            let wrong = decode_prompt(payload).unwrap_err();
            let Verdict::Refused { code: got, message, frame } = refused(payload, &wrong) else { panic!("kept") };
            assert_eq!(got, code);
            assert!(message.contains(expect), "{message} lacks {expect}");
            assert!(!frame.is_empty());
        };
        check(br#"{"input":5}"#, ErrorCode::Invalid, "input");
        check(br#"{"input":"x","deadline_ms":-1}"#, ErrorCode::Invalid, "deadline_ms is -1, allowed are 1 to");
        check(&[0xff, 0xfe], ErrorCode::Invalid, "0xff");
        check(&vec![b'a'; 70_000], ErrorCode::TooLarge, "70000 bytes, limit is 65536");
    }
}
