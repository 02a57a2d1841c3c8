//! Joins tokens: a frame per token would cost more on the wire than its text.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidegate_schemas::{JobId, PromptText};

/// Longest that a piece waits for the next: a tenth of a second reads as flowing.
const JOIN_MAX: Duration = Duration::from_millis(100);
/// Bytes from which a piece goes at once: a frame of it fits one packet of every radio.
const JOIN_BYTES: usize = 256;

/// Text of running answers that was not passed on.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    jobs: HashMap<JobId, Piece>,
}

#[derive(Debug)]
struct Piece {
    text: String,
    passed: Instant,
}

impl Pieces {
    /// A token came: what is to be passed on now. The first one always is.
    pub(super) fn add(&mut self, job: JobId, text: &PromptText, now: Instant) -> Option<PromptText> {
        let Some(piece) = self.jobs.get_mut(&job) else {
            self.jobs.insert(job, Piece { text: String::new(), passed: now });
            return Some(text.clone());
        };
        piece.text.push_str(text.reveal());
        if piece.text.len() < JOIN_BYTES && now.duration_since(piece.passed) < JOIN_MAX {
            return None;
        }
        piece.passed = now;
        Some(std::mem::take(&mut piece.text).into())
    }

    /// When [`Self::due`] has something, if nothing else comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.jobs.values().filter(|p| !p.text.is_empty()).map(|p| p.passed + JOIN_MAX).min()
    }

    /// What has waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(JobId, PromptText)> {
        let ripe = |p: &&mut Piece| !p.text.is_empty() && now.duration_since(p.passed) >= JOIN_MAX;
        let mut found = Vec::new();
        for (job, piece) in &mut self.jobs {
            if let Some(piece) = Some(piece).filter(ripe) {
                piece.passed = now;
                found.push((*job, std::mem::take(&mut piece.text).into()));
            }
        }
        found
    }

    /// The run is over: its rest.
    pub(super) fn end(&mut self, job: JobId) -> Option<PromptText> {
        self.jobs.remove(&job).filter(|p| !p.text.is_empty()).map(|p| p.text.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn joins_by_time_and_size_and_loses_nothing() {
        let (mut pieces, start, job) = (Pieces::default(), Instant::now(), JobId(1));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pieces.add(job, &"a".into(), at(0)), Some("a".into()));
        assert_eq!(pieces.next_due(), None);
        assert_eq!(pieces.add(job, &"b".into(), at(10)), None);
        assert_eq!(pieces.add(job, &"c".into(), at(20)), None);
        assert_eq!(pieces.next_due(), Some(at(100)));
        assert!(pieces.due(at(99)).is_empty());
        assert_eq!(pieces.due(at(100)), [(job, "bc".into())]);
        let long = "x".repeat(JOIN_BYTES);
        assert_eq!(pieces.add(job, &long.as_str().into(), at(101)), Some(long.as_str().into()));
        assert_eq!(pieces.add(job, &"d".into(), at(102)), None);
        assert_eq!(pieces.end(job), Some("d".into()));
        assert_eq!(pieces.end(job), None);
    }
}
