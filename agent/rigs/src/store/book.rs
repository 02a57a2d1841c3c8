//! What the devices of a rig know, byte for byte: which prompts were acknowledged, and every outcome that came. The
//! witness against lost prompts and second outcomes, across any number of lives of the gateway.

use crate::device::decode;
use crate::link::Acknowledgement;
use std::collections::BTreeMap;
use tidegate_schemas::{Answer, ErrorCode, Frame, PromptId, Route};

/// The life of one prompt.
#[derive(Debug, Default, Clone)]
pub(crate) struct Entry {
    /// Its payload, to be published again.
    pub(crate) payload: Vec<u8>,
    /// Acknowledged with success and not refused before.
    pub(crate) acknowledged: bool,
    /// Refused: it was not accepted.
    pub(crate) refused: bool,
    /// The first outcome: its bytes and what they say.
    outcome: Option<(Vec<u8>, Frame)>,
    /// The same outcome again.
    pub(crate) repeats: u32,
    /// Another outcome, or a provisional answer after it.
    pub(crate) seconds: u32,
    /// Whether its outcome was asked for again, and came.
    fetched: Fetched,
    /// The gateway said that it knows no such prompt, though it was acknowledged.
    pub(crate) unknown: u32,
}

/// Whether a stored outcome was asked for again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Fetched {
    /// Not asked for.
    #[default]
    No,
    /// Asked for.
    Asked,
    /// Asked for, and some answer came.
    Answered,
    /// Not to be asked for: the gateway need not know so old an id any more.
    TooOld,
}

/// Ids of one device that a gateway must know again: promise 3 names 4,096 answered ones. Answers come in another order
/// than prompts, so that the last few of these are left out.
const KNOWN_AGAIN_MAX: usize = 4_000;

/// All prompts of all devices of a rig.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: BTreeMap<String, Entry>,
    /// Frames for prompts that nobody sent, and frames that are none.
    pub(crate) strangers: u32,
}

/// The sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Sums {
    /// Prompts that were published.
    pub(crate) published: u32,
    /// Prompts that were acknowledged.
    pub(crate) acknowledged: u32,
    /// Acknowledged prompts without an outcome.
    pub(crate) open: u32,
    /// Prompts with an answer for an outcome.
    pub(crate) answered: u32,
    /// Answers by a worker among them.
    pub(crate) cloud: u32,
    /// Prompts with the outcome that they are dead letters.
    pub(crate) dead: u32,
    /// Outcomes that came more than once, the same.
    pub(crate) repeats: u32,
    /// Outcomes too many.
    pub(crate) seconds: u32,
    /// Acknowledged prompts that the gateway did not know any more.
    pub(crate) unknown: u32,
    /// Prompts whose stored outcome was asked for again and did not come yet.
    pub(crate) unfetched: u32,
    /// Prompts that were refused.
    pub(crate) refused: u32,
    /// Frames that belong to nothing.
    pub(crate) strangers: u32,
}

impl Book {
    /// A prompt is about to be published.
    pub(crate) fn publish(&mut self, id: &PromptId, payload: Vec<u8>) {
        self.entries.entry(id.to_string()).or_insert_with(|| Entry { payload, ..Entry::default() });
    }

    /// Its payload.
    pub(crate) fn payload(&self, id: &PromptId) -> Option<Vec<u8>> {
        self.entries.get(id.as_str()).map(|entry| entry.payload.clone())
    }

    /// A PUBACK came. A device of MQTT 3.1.1 gets its refusal before a PUBACK that cannot say no.
    pub(crate) fn puback(&mut self, id: &PromptId, how: Acknowledgement) {
        let Some(entry) = self.entries.get_mut(id.as_str()) else { return };
        match how {
            Acknowledgement::Success => entry.acknowledged |= !entry.refused,
            Acknowledgement::Failure => entry.refused |= !entry.acknowledged && entry.outcome.is_none(),
        }
    }

    /// A message came.
    pub(crate) fn message(&mut self, payload: &[u8]) {
        let frame = decode(payload);
        let entry = frame.as_ref().and_then(Frame::id).and_then(|id| self.entries.get_mut(id.as_str()));
        match (entry, frame) {
            (Some(entry), Some(frame)) => entry.take(payload, frame),
            _ => self.strangers += 1,
        }
    }

    /// Prompts that wait for anything.
    pub(crate) fn open(&self) -> Vec<PromptId> {
        let open = self.entries.iter().filter(|(_, entry)| !entry.refused && entry.outcome.is_none());
        open.filter_map(|(id, _)| id.parse().ok()).collect()
    }

    /// Whether a prompt waits for nothing any more.
    pub(crate) fn has_outcome(&self, id: &PromptId) -> bool {
        self.entries.get(id.as_str()).is_some_and(|entry| entry.refused || entry.outcome.is_some())
    }

    /// Prompts of these names that are neither acknowledged nor refused: to be published again.
    pub(crate) fn unacknowledged(&self, device: &str) -> Vec<PromptId> {
        self.ids(device, |entry| !entry.acknowledged && !entry.refused && entry.outcome.is_none())
    }

    /// The next acknowledged prompt of a device whose stored outcome was not asked for again; it is now.
    pub(crate) fn fetch(&mut self, device: &str) -> Option<PromptId> {
        let id = self
            .ids(device, |e| e.acknowledged && e.outcome.is_some() && e.fetched == Fetched::No)
            .into_iter()
            .next()?;
        self.entries.get_mut(id.as_str())?.fetched = Fetched::Asked;
        Some(id)
    }

    /// Only the stored outcomes of each device's latest prompts are to be asked for again.
    pub(crate) fn forget_old(&mut self) {
        let mut devices: BTreeMap<&str, Vec<(u32, &mut Entry)>> = BTreeMap::new();
        for (id, entry) in &mut self.entries {
            let Some((device, number)) = id.rsplit_once('.') else { continue };
            devices.entry(device).or_default().push((number.parse().unwrap_or(0), entry));
        }
        for prompts in devices.values_mut() {
            prompts.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
            let old = prompts.iter_mut().skip(KNOWN_AGAIN_MAX).filter(|(_, entry)| entry.outcome.is_some());
            old.for_each(|(_, entry)| entry.fetched = Fetched::TooOld);
        }
    }

    /// Whether every prompt is acknowledged or refused.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.entries.values().all(|e| e.acknowledged || e.refused || e.outcome.is_some())
    }

    /// Whether every acknowledged prompt has its outcome, and has shown it again from the store where it must.
    pub(crate) fn is_audited(&self) -> bool {
        self.entries.values().all(|e| !e.acknowledged || matches!(e.fetched, Fetched::Answered | Fetched::TooOld))
    }

    /// How many prompts of a device wait for anything.
    pub(crate) fn waiting(&self, device: &str) -> usize {
        self.ids(device, |entry| !entry.refused && entry.outcome.is_none()).len()
    }

    /// Ids begin with the name of their device.
    fn ids(&self, device: &str, is: impl Fn(&Entry) -> bool) -> Vec<PromptId> {
        let (first, last) = (format!("{device}."), format!("{device}/"));
        let own = self.entries.range(first..last).filter(|(_, entry)| is(entry));
        own.filter_map(|(id, _)| id.parse().ok()).collect()
    }

    /// The sums.
    pub(crate) fn sums(&self) -> Sums {
        let mut sums = Sums { strangers: self.strangers, ..Sums::default() };
        for entry in self.entries.values() {
            sums.published += 1;
            sums.acknowledged += u32::from(entry.acknowledged);
            sums.open += u32::from(entry.acknowledged && entry.outcome.is_none());
            sums.refused += u32::from(entry.refused);
            sums.repeats += entry.repeats;
            sums.seconds += entry.seconds;
            sums.unknown += entry.unknown;
            sums.unfetched += u32::from(entry.fetched == Fetched::Asked);
            let route = entry.outcome.as_ref().and_then(|(_, frame)| route(frame));
            sums.answered += u32::from(route.is_some());
            sums.cloud += u32::from(route == Some(Route::Cloud));
            let dead = |(_, frame): &(Vec<u8>, Frame)| matches!(frame, Frame::Error(e) if e.code == ErrorCode::Dead);
            sums.dead += u32::from(entry.outcome.as_ref().is_some_and(dead));
        }
        sums
    }

    /// Acknowledged prompts that lack their outcome, or did not show it again when they were asked to.
    pub(crate) fn lost(&self) -> u32 {
        let sums = self.sums();
        sums.open + sums.unknown + sums.unfetched
    }

    /// Ids of acknowledged prompts that have no outcome, and of those with too many.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let open = self.entries.iter().filter(|(_, e)| e.acknowledged && e.outcome.is_none());
        let open = open.map(|(id, _)| format!("{id} has no outcome"));
        let seconds =
            self.entries.iter().filter(|(_, e)| e.seconds > 0).map(|(id, _)| format!("{id} has two outcomes"));
        let unknown =
            self.entries.iter().filter(|(_, e)| e.unknown > 0).map(|(id, _)| format!("{id} is not known any more"));
        open.chain(seconds).chain(unknown).collect()
    }
}

impl Entry {
    fn take(&mut self, payload: &[u8], frame: Frame) {
        let ends = matches!(&frame, Frame::Error(_)) || matches!(&frame, Frame::Answer(a) if !a.provisional);
        if ends && self.fetched == Fetched::Asked {
            self.fetched = Fetched::Answered;
        }
        match &frame {
            Frame::Accepted(_) | Frame::Token(_) => {}
            Frame::Answer(answer) if answer.provisional => self.seconds += u32::from(self.outcome.is_some()),
            Frame::Error(error) if error.code == ErrorCode::UnknownId => self.unknown += u32::from(self.acknowledged),
            Frame::Error(error) if self.is_refusal(error.code) => self.refused = true,
            Frame::Answer(_) | Frame::Error(_) => self.settle(payload, frame),
        }
    }

    fn is_refusal(&self, code: ErrorCode) -> bool {
        use ErrorCode::{Busy, IdReused, Invalid, NotAllowed, TooLarge, UnknownTask};
        let before = !self.acknowledged && self.outcome.is_none();
        before && matches!(code, Invalid | TooLarge | UnknownTask | NotAllowed | Busy | IdReused)
    }

    fn settle(&mut self, payload: &[u8], frame: Frame) {
        match &self.outcome {
            None => self.outcome = Some((payload.to_vec(), frame)),
            Some((bytes, first)) if same(bytes, first, payload, &frame) => self.repeats += 1,
            Some(_) => self.seconds += 1,
        }
    }
}

fn route(frame: &Frame) -> Option<Route> {
    match frame {
        Frame::Answer(answer) => Some(answer.route),
        Frame::Accepted(_) | Frame::Token(_) | Frame::Error(_) => None,
    }
}

/// The same bytes; or, where exactly one of both was read from the store again, the same in all but the route.
fn same(bytes: &[u8], first: &Frame, payload: &[u8], frame: &Frame) -> bool {
    match (first, frame) {
        (Frame::Answer(a), Frame::Answer(b)) if (a.route == Route::Stored) != (b.route == Route::Stored) => {
            *a == Answer { route: a.route, ..b.clone() }
        }
        _ => bytes == payload,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id() -> PromptId {
        "local-1.7".parse().unwrap()
    }

    fn answer(text: &str, route: &str, provisional: bool) -> Vec<u8> {
        let value = serde_json::json!({
            "kind": "answer", "id": "local-1.7", "text": text, "route": route, "reason": "confident", "model": "m",
            "provisional": provisional, "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "timing": {"queued_ms": 0, "prefill_ms": 0, "decode_ms": 0, "total_ms": 0},
        });
        value.to_string().into_bytes()
    }

    fn error(code: &str) -> Vec<u8> {
        serde_json::json!({"kind": "error", "id": "local-1.7", "code": code, "message": ""}).to_string().into_bytes()
    }

    fn after(messages: &[Vec<u8>]) -> Sums {
        let mut book = Book::default();
        book.publish(&id(), vec![1]);
        book.puback(&id(), Acknowledgement::Success);
        messages.iter().for_each(|message| book.message(message));
        book.sums()
    }

    #[test]
    fn an_acknowledged_prompt_is_open_until_its_outcome() {
        assert_eq!(after(&[]).open, 1);
        assert_eq!(after(&[answer("x", "local", true)]).open, 1);
        assert_eq!(
            after(&[answer("x", "cloud", false)]),
            Sums { published: 1, acknowledged: 1, answered: 1, cloud: 1, ..Sums::default() }
        );
        assert_eq!(after(&[error("expired")]).open, 0);
    }

    #[test]
    fn the_same_bytes_are_a_repeat_and_others_a_second() {
        let first = answer("x", "local", false);
        assert_eq!(
            (after(&[first.clone(), first.clone()]).repeats, after(&[first.clone(), first.clone()]).seconds),
            (1, 0)
        );
        let mut spaced = first.clone();
        spaced.push(b' ');
        assert_eq!(after(&[first.clone(), spaced]).seconds, 1, "the same frame in other bytes");
        for second in
            [answer("y", "local", false), answer("x", "cloud", false), error("expired"), answer("x", "local", true)]
        {
            assert_eq!(after(&[first.clone(), second]).seconds, 1);
        }
        assert_eq!(after(&[error("expired"), first]).seconds, 1);
    }

    #[test]
    fn a_stored_outcome_is_the_same_in_all_but_its_route() {
        let stored = answer("x", "stored", false);
        assert_eq!(after(&[answer("x", "cloud", false), stored.clone()]).seconds, 0);
        assert_eq!(after(&[stored.clone(), answer("x", "local", false)]).seconds, 0);
        assert_eq!(after(&[answer("y", "local", false), stored]).seconds, 1);
    }

    #[test]
    fn a_prompt_that_is_not_known_any_more_is_lost() {
        assert_eq!(after(&[error("unknown_id")]).unknown, 1);
    }

    #[test]
    fn only_the_latest_outcomes_are_asked_for_again() {
        let mut book = Book::default();
        for number in 1..=KNOWN_AGAIN_MAX + 2 {
            let id: PromptId = format!("local-1.{number}").parse().unwrap();
            book.publish(&id, vec![1]);
            book.puback(&id, Acknowledgement::Success);
            // The first one never got its outcome: it stays open, however old it is.
            if number > 1 {
                book.message(
                    &serde_json::to_vec(
                        &serde_json::json!({ "kind": "error", "id": id, "code": "expired", "message": "" }),
                    )
                    .unwrap(),
                );
            }
        }
        book.forget_old();
        let mut asked = 0;
        while book.fetch("local-1").is_some() {
            asked += 1;
        }
        assert_eq!((asked, book.sums().open), (KNOWN_AGAIN_MAX, 1));
    }

    #[test]
    fn a_refused_prompt_is_not_acknowledged() {
        let mut book = Book::default();
        book.publish(&id(), vec![1]);
        assert_eq!(book.unacknowledged("local-1"), [id()]);
        assert!(book.unacknowledged("local").is_empty() && book.unacknowledged("local-11").is_empty());
        book.message(&error("busy"));
        book.puback(&id(), Acknowledgement::Success);
        assert_eq!((book.sums().acknowledged, book.sums().refused, book.waiting("local-1")), (0, 1, 0));
    }
}
