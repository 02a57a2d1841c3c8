//! How sure predicted times are, and whether the machine is to be spared. Invariant: what is learned is the ratio of
//! actual to predicted time of answers that this gateway finished.

use super::{Dispatcher, Run};
use crate::Note;
use crate::command::Command;
use crate::interval::{Interval, Spread};
use crate::job::Job;
use crate::strain::{Condition, Strain};
use crate::time::Now;

/// What earlier predictions were off by.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// From acceptance to the answer.
    whole: Spread,
    /// In the slot.
    own: Spread,
}

impl Times {
    /// The interval around a predicted time from acceptance to the answer.
    pub(super) fn whole(&self, predicted_ms: u64) -> Interval {
        self.whole.around_or_near(predicted_ms as f64)
    }

    /// The interval around a predicted time in the slot.
    pub(super) fn own(&self, predicted_ms: u64) -> Interval {
        self.own.around_or_near(predicted_ms as f64)
    }

    /// An answer was finished.
    pub(super) fn learn(&mut self, job: &Job, run: &Run, now: Now) {
        self.own.add(run.predicted_ms as f64, now.since(run.started) as f64);
        if let Some(predicted_ms) = job.predicted_ms.filter(|_| job.runs == 1) {
            self.whole.add(predicted_ms as f64, now.since(job.received) as f64);
        }
    }
}

impl Dispatcher {
    /// The sensors were read.
    pub(super) fn machine(&mut self, condition: Condition) {
        let after = Strain::of(condition, self.strain);
        let before = std::mem::replace(&mut self.strain, after);
        if before != self.strain {
            self.out.push(Command::Note(Note::Strain(self.strain)));
        }
    }
}
