//! Another model takes over while the one before ends what it began.
//!
//! Invariants: an answer is judged by what is known of the model that wrote it, and teaches about no other; predictions
//! begin anew with each model; of the model before only what ran when it was replaced is still running.

use super::{Dispatcher, Run};
use crate::Calibration;
use crate::knowledge::{Knowledge, Sense};
use crate::predict::Predictor;
use crate::site::Task;
use crate::time::Now;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_schemas::{ModelName, TaskName};

use super::times::Times;

/// What each task thinks of a model's answers. A task of which nothing is known takes the model's own probability as it
/// is, and keeps nothing on a promise.
pub(super) fn senses(
    tasks: &BTreeMap<TaskName, Arc<Task>>,
    mut known: BTreeMap<TaskName, Knowledge>,
) -> BTreeMap<TaskName, Sense> {
    let sense = |(name, task): (&TaskName, &Arc<Task>)| {
        let known = known.remove(name).unwrap_or_else(|| Calibration::identity().into());
        (name.clone(), Sense::new(known, task.keep, task.learning))
    };
    tasks.iter().map(sense).collect()
}

/// Predictions of a model of which nothing was measured.
pub(super) fn predictor(tasks: &BTreeMap<TaskName, Arc<Task>>) -> Predictor {
    Predictor::new(tasks.iter().map(|(name, task)| (name.clone(), task.expected_tokens)))
}

impl Dispatcher {
    /// From here on new runs are the new model's.
    pub(super) fn engine_replaced(&mut self, model: ModelName, known: BTreeMap<TaskName, Knowledge>) {
        let before = std::mem::replace(&mut self.senses, senses(&self.tasks, known));
        self.engine.before = if self.engine.running.is_empty() { BTreeMap::new() } else { before };
        self.engine.generation += 1;
        self.engine.model = Some(model);
        (self.predictor, self.times) = (predictor(&self.tasks), Times::default());
        for job in self.jobs.values_mut() {
            job.judgement = None;
            if let Some(case) = job.case.as_deref_mut() {
                case.judgement = None;
            }
        }
    }

    /// The model before died before its last answer.
    pub(super) fn old_engine_gone(&mut self, now: Now) {
        let generation = self.engine.generation;
        self.lost(&|run: &Run| run.generation != generation, now);
    }
}
