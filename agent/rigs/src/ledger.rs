//! What one device knows of its own prompts, counted without asking the gateway: what it published, what was
//! acknowledged, and every outcome that came. This is the witness against lost prompts and second outcomes.

use crate::link::Acknowledgement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_schemas::{Answer, ErrorCode, ErrorFrame, Frame, PromptId, Route};

/// A frame and when it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Microseconds of the monotonic clock.
    pub(crate) at_us: u64,
    /// The frame.
    pub(crate) frame: Frame,
}

/// The life of one prompt as its device saw it. Moments are microseconds of the monotonic clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The line of the prompt file, from 0.
    pub(crate) line: u32,
    /// When it was first published.
    pub(crate) published_us: u64,
    /// When its PUBACK of success came.
    pub(crate) acked_us: Option<u64>,
    /// When its `accepted` frame came.
    pub(crate) accepted_us: Option<u64>,
    /// The refusal that stands, if it was refused and not tried again since.
    pub(crate) refused: Option<Refusal>,
    /// The provisional answer.
    pub(crate) provisional: Option<Seen>,
    /// The first outcome.
    pub(crate) outcome: Option<Seen>,
    /// Deliveries of the same outcome after the first: allowed, it is sent at least once.
    pub(crate) repeats: u32,
    /// Outcomes that differ from the first, and provisional answers after it: never allowed.
    pub(crate) seconds: u32,
    /// `token` frames.
    pub(crate) tokens: u32,
}

/// Why a prompt was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The code of the `error` frame; none where only the PUBACK said no.
    pub(crate) code: Option<ErrorCode>,
    /// When trying again makes sense, in milliseconds.
    pub(crate) retry_after_ms: Option<u64>,
}

/// Sums over a device's prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Prompts published, each once however often it was tried.
    pub(crate) published: u32,
    /// Prompts with an outcome.
    pub(crate) settled: u32,
    /// Prompts that were refused for good.
    pub(crate) refused: u32,
    /// Prompts with a provisional answer and no outcome yet.
    pub(crate) provisional: u32,
    /// Outcomes too many.
    pub(crate) seconds: u32,
    /// Frames for prompts that this device never sent.
    pub(crate) strangers: u32,
}

impl Tally {
    /// Prompts that have neither outcome nor refusal: lost, once nothing more can come.
    pub(crate) fn open(&self) -> u32 {
        self.published - self.settled - self.refused
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            published: self.published + other.published,
            settled: self.settled + other.settled,
            refused: self.refused + other.refused,
            provisional: self.provisional + other.provisional,
            seconds: self.seconds + other.seconds,
            strangers: self.strangers + other.strangers,
        }
    }
}

/// All prompts of a device.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<String, Entry>,
    strangers: u32,
}

impl Ledger {
    /// A prompt is about to be published, for the first time or again.
    pub(crate) fn published(&mut self, id: &PromptId, line: u32, at_us: u64) {
        let fresh = Entry {
            line,
            published_us: at_us,
            acked_us: None,
            accepted_us: None,
            refused: None,
            provisional: None,
            outcome: None,
            repeats: 0,
            seconds: 0,
            tokens: 0,
        };
        self.entries.entry(id.to_string()).or_insert(fresh).refused = None;
    }

    /// A PUBACK came.
    pub(crate) fn acknowledged(&mut self, id: &PromptId, how: Acknowledgement, at_us: u64) {
        let Some(entry) = self.entries.get_mut(id.as_str()) else { return };
        match how {
            Acknowledgement::Success if entry.refused.is_none() => entry.acked_us = entry.acked_us.or(Some(at_us)),
            // A device of MQTT 3.1.1 gets its refusal before a PUBACK that cannot say no.
            Acknowledgement::Success => {}
            Acknowledgement::Failure if entry.refused.is_some() || entry.outcome.is_some() => {}
            Acknowledgement::Failure => entry.refused = Some(Refusal { code: None, retry_after_ms: None }),
        }
    }

    /// A frame came.
    pub(crate) fn frame(&mut self, frame: Frame, at_us: u64) {
        let entry = frame.id().and_then(|id| self.entries.get_mut(id.as_str()));
        match entry {
            Some(entry) => entry.take(frame, at_us),
            None => self.strangers += 1,
        }
    }

    /// A frame came that is none.
    pub(crate) fn unreadable(&mut self) {
        self.strangers += 1;
    }

    /// How long to wait before this prompt may be tried again; none when it was not refused as `busy`.
    pub(crate) fn retry_after_ms(&self, id: &PromptId) -> Option<u64> {
        let refusal = self.entries.get(id.as_str())?.refused.as_ref()?;
        (refusal.code == Some(ErrorCode::Busy)).then(|| refusal.retry_after_ms.unwrap_or(0))
    }

    /// Prompts that were published and never acknowledged, refused or settled: to be published again after a
    /// connection was lost.
    pub(crate) fn unacknowledged(&self) -> Vec<PromptId> {
        let open = self.entries.iter().filter(|(_, e)| e.acked_us.is_none() && e.refused.is_none());
        let ids = open.filter(|(_, e)| e.outcome.is_none()).map(|(id, _)| id.parse());
        ids.map(|id| id.expect("the key was an id before it was a text")).collect()
    }

    /// The sums.
    pub(crate) fn tally(&self) -> Tally {
        let count = |is: fn(&Entry) -> bool| self.entries.values().filter(|e| is(e)).count() as u32;
        Tally {
            published: self.entries.len() as u32,
            settled: count(|e| e.outcome.is_some()),
            refused: count(|e| e.refused_for_good()),
            provisional: count(|e| e.provisional.is_some() && e.outcome.is_none()),
            seconds: self.entries.values().map(|e| e.seconds).sum(),
            strangers: self.strangers,
        }
    }

    /// Everything, by line of the prompt file.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }
}

impl Entry {
    fn refused_for_good(&self) -> bool {
        let busy = |refusal: &Refusal| refusal.code == Some(ErrorCode::Busy);
        self.outcome.is_none() && self.refused.as_ref().is_some_and(|refusal| !busy(refusal))
    }

    fn take(&mut self, frame: Frame, at_us: u64) {
        match &frame {
            Frame::Accepted(_) => self.accepted_us = self.accepted_us.or(Some(at_us)),
            Frame::Token(_) => self.tokens += 1,
            Frame::Answer(answer) if answer.provisional => match self.outcome {
                None => self.provisional = Some(Seen { at_us, frame }),
                Some(_) => self.seconds += 1,
            },
            Frame::Error(error) if self.is_refusal(error) => {
                let retry_after_ms = error.retry_after_ms;
                self.refused = Some(Refusal { code: Some(error.code), retry_after_ms });
            }
            Frame::Answer(_) | Frame::Error(_) => self.settle(frame, at_us),
        }
    }

    /// A refusal comes before any acceptance; `too_large` is one or the other.
    fn is_refusal(&self, error: &ErrorFrame) -> bool {
        let before = self.acked_us.is_none() && self.accepted_us.is_none() && self.outcome.is_none();
        match error.code {
            ErrorCode::Invalid
            | ErrorCode::TooLarge
            | ErrorCode::UnknownTask
            | ErrorCode::NotAllowed
            | ErrorCode::Busy
            | ErrorCode::IdReused => before,
            ErrorCode::Expired
            | ErrorCode::Cancelled
            | ErrorCode::Cut
            | ErrorCode::Dead
            | ErrorCode::Unresolved
            | ErrorCode::UnknownId => false,
        }
    }

    fn settle(&mut self, frame: Frame, at_us: u64) {
        match &self.outcome {
            None => self.outcome = Some(Seen { at_us, frame }),
            Some(first) if same_outcome(&first.frame, &frame) => self.repeats += 1,
            Some(_) => self.seconds += 1,
        }
    }
}

/// Whether a later outcome is the first one again: the same frame, or the stored one, which names another route.
fn same_outcome(first: &Frame, later: &Frame) -> bool {
    match (first, later) {
        (Frame::Answer(first), Frame::Answer(later)) if later.route == Route::Stored => {
            *first == Answer { route: first.route, ..later.clone() }
        }
        _ => first == later,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(text: &str) -> PromptId {
        text.parse().unwrap()
    }

    fn answer(text: &str, provisional: bool) -> Frame {
        let value = serde_json::json!({
            "kind": "answer", "id": "a", "text": text, "route": "local", "reason": "confident", "model": "m",
            "provisional": provisional, "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "timing": {"queued_ms": 0, "prefill_ms": 0, "decode_ms": 0, "total_ms": 0},
        });
        serde_json::from_value(value).unwrap()
    }

    fn error(code: ErrorCode) -> Frame {
        Frame::Error(ErrorFrame { id: Some(id("a")), code, message: String::new(), retry_after_ms: Some(7) })
    }

    /// A ledger with one prompt `a` that got these frames, after its PUBACK.
    fn accepted(frames: Vec<Frame>) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.published(&id("a"), 0, 1);
        ledger.acknowledged(&id("a"), Acknowledgement::Success, 2);
        frames.into_iter().for_each(|frame| ledger.frame(frame, 3));
        ledger
    }

    #[test]
    fn a_prompt_without_outcome_is_open() {
        assert_eq!(accepted(vec![]).tally().open(), 1);
        assert_eq!(accepted(vec![answer("x", true)]).tally().open(), 1);
        assert_eq!(accepted(vec![answer("x", false)]).tally().open(), 0);
        assert_eq!(accepted(vec![error(ErrorCode::Expired)]).tally().open(), 0);
    }

    #[test]
    fn the_same_outcome_again_is_a_repeat_and_another_is_a_second() {
        let repeat = accepted(vec![answer("x", false), answer("x", false)]);
        assert_eq!((repeat.entries()[0].repeats, repeat.tally().seconds), (1, 0));
        let second = accepted(vec![answer("x", false), answer("y", false)]);
        assert_eq!((second.entries()[0].repeats, second.tally().seconds), (0, 1));
        assert_eq!(accepted(vec![answer("x", false), error(ErrorCode::Expired)]).tally().seconds, 1);
        assert_eq!(accepted(vec![error(ErrorCode::Expired), answer("x", false)]).tally().seconds, 1);
    }

    #[test]
    fn a_stored_outcome_is_the_first_one_again() {
        let stored = |text| match answer(text, false) {
            Frame::Answer(answer) => Frame::Answer(Answer { route: Route::Stored, ..answer }),
            other => other,
        };
        assert_eq!(accepted(vec![answer("x", false), stored("x")]).tally().seconds, 0);
        assert_eq!(accepted(vec![answer("x", false), stored("y")]).tally().seconds, 1);
    }

    #[test]
    fn a_provisional_answer_is_none_too_many_before_the_outcome_and_one_after_it() {
        assert_eq!(accepted(vec![answer("x", true), answer("y", false)]).tally().seconds, 0);
        assert_eq!(accepted(vec![answer("y", false), answer("x", true)]).tally().seconds, 1);
    }

    #[test]
    fn a_refusal_before_acceptance_is_no_outcome() {
        let mut ledger = Ledger::default();
        ledger.published(&id("a"), 0, 1);
        ledger.frame(error(ErrorCode::UnknownTask), 2);
        ledger.acknowledged(&id("a"), Acknowledgement::Success, 3);
        let tally = ledger.tally();
        assert_eq!((tally.settled, tally.refused, tally.open()), (0, 1, 0));
        assert!(ledger.unacknowledged().is_empty());
    }

    #[test]
    fn busy_stays_open_and_is_tried_again() {
        let mut ledger = Ledger::default();
        ledger.published(&id("a"), 0, 1);
        ledger.frame(error(ErrorCode::Busy), 2);
        assert_eq!(ledger.retry_after_ms(&id("a")), Some(7));
        assert_eq!(ledger.tally().open(), 1);
        ledger.published(&id("a"), 0, 3);
        assert_eq!(ledger.retry_after_ms(&id("a")), None);
        assert_eq!(ledger.tally().published, 1);
        assert_eq!(ledger.unacknowledged(), [id("a")]);
    }

    #[test]
    fn a_failing_puback_alone_refuses() {
        let mut ledger = Ledger::default();
        ledger.published(&id("a"), 0, 1);
        ledger.acknowledged(&id("a"), Acknowledgement::Failure, 2);
        assert_eq!(ledger.tally().refused, 1);
    }

    #[test]
    fn frames_for_prompts_that_were_never_sent_are_counted() {
        let mut ledger = Ledger::default();
        ledger.frame(answer("x", false), 1);
        ledger.unreadable();
        assert_eq!(ledger.tally().strangers, 2);
    }
}
