//! A prompt of the page: comes in as at the door, and its frames go out as lines of JSON while they arise.

use super::Shown;
use crate::up::message::Input;
use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tidegate_broker::Verdict;
use tidegate_schemas::{DeadlineMs, PROMPT_BYTES_MAX, Priority, Prompt, TaskName};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Frames that wait for a browser: a burst of a fast model.
const FRAMES_MAX: usize = 256;
/// Priority of what a person asks here: theirs is one among the devices'.
const PRIORITY: u8 = 4;

/// What a person asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    input: String,
    task: Option<TaskName>,
    #[serde(default)]
    local: bool,
    deadline_ms: Option<u64>,
}

/// A refusal in words, or its frame.
type Refused = (StatusCode, Bytes);

impl Question {
    /// Reads one.
    pub(super) fn read(body: &[u8]) -> Result<Self, Refused> {
        // What serde says of a body may quote it; nothing of it goes back.
        let question: Self = serde_json::from_slice(body).map_err(|_| {
            (
                StatusCode::BAD_REQUEST,
                Bytes::from_static(b"needed is JSON with input and maybe task, local, deadline_ms\n"),
            )
        })?;
        let bytes = question.input.len();
        if question.input.trim().is_empty() || bytes > PROMPT_BYTES_MAX {
            let words =
                format!("the prompt is {bytes} bytes, allowed are 1 to {PROMPT_BYTES_MAX} that are not blank\n");
            return Err((StatusCode::BAD_REQUEST, words.into()));
        }
        Ok(question)
    }

    fn prompt(self) -> Prompt {
        Prompt {
            task: self.task,
            priority: Priority::new(PRIORITY).unwrap_or_default(),
            deadline_ms: self.deadline_ms.and_then(DeadlineMs::new),
            stream: true,
            local: self.local,
            ..Prompt::bare(&self.input)
        }
    }

    /// Asks. The body that comes back ends with the outcome.
    pub(super) async fn ask(self, shown: &Shown) -> Result<Body, Refused> {
        let Ok(place) = shown.asks.clone().try_acquire_owned() else {
            shown.turned.add(super::Why::Crowd);
            let words = Bytes::from_static(b"too many prompts of the page are under way\n");
            return Err((StatusCode::SERVICE_UNAVAILABLE, words));
        };
        let (frames, seen) = mpsc::channel(FRAMES_MAX);
        let (reply, verdict) = oneshot::channel();
        let bytes = u32::try_from(self.input.len()).unwrap_or(u32::MAX);
        let prompt = Arc::new(self.prompt());
        let stopping = || (StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"the gateway is stopping\n"));
        shown.desk.inputs.send(Input::Ask { prompt, bytes, frames, reply }).await.map_err(|_| stopping())?;
        match verdict.await.map_err(|_| stopping())? {
            Verdict::Refused { frame, .. } => Err((StatusCode::TOO_MANY_REQUESTS, frame)),
            Verdict::Kept { frame } => Ok(lines(frame, seen, place)),
        }
    }
}

/// One frame per line.
fn lines(first: Option<Bytes>, mut seen: mpsc::Receiver<Bytes>, place: OwnedSemaphorePermit) -> Body {
    let mut first = first;
    Body::from_stream(futures_util::stream::poll_fn(move |cx| {
        let _place = &place;
        let frame = match first.take() {
            Some(frame) => Some(frame),
            None => std::task::ready!(seen.poll_recv(cx)),
        };
        std::task::Poll::Ready(frame.map(|frame| Ok::<_, Infallible>([&frame[..], b"\n"].concat())))
    }))
}
