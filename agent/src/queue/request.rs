//! What can be asked of a queue, as it crosses the control socket.

use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidegate_core::Consent;
use tidegate_schemas::{Prompt, TaskName};
use tidegate_spool::{QueueClass, Reach};

/// One question or order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Request {
    /// How much is in each class?
    Counts,
    /// What is in a class, oldest first?
    Ls {
        /// Which.
        class: QueueClass,
        /// Only entries above this number.
        after: u64,
        /// At most so many.
        limit: u64,
    },
    /// What is one entry?
    Show {
        /// Of which class.
        class: QueueClass,
        /// Its number.
        number: u64,
        /// With its text.
        reveal: bool,
    },
    /// A dead letter is tried again.
    Retry {
        /// Its number.
        number: u64,
    },
    /// An entry goes.
    Drop {
        /// Of which class.
        class: QueueClass,
        /// Its number.
        number: u64,
    },
    /// A page of a class, for a file.
    Export {
        /// Which.
        class: QueueClass,
        /// Only entries above this number.
        after: u64,
        /// With text.
        reveal: bool,
    },
}

impl Request {
    /// Whether it asks for text of prompts and answers.
    pub(crate) fn reveals(self) -> bool {
        matches!(self, Self::Show { reveal: true, .. } | Self::Export { reveal: true, .. })
    }

    /// Whether it changes something.
    pub(crate) fn changes(self) -> bool {
        matches!(self, Self::Retry { .. } | Self::Drop { .. })
    }
}

/// Which tasks' texts may leave the host.
#[derive(Debug, Clone)]
pub(crate) struct Reaches {
    default_task: TaskName,
    cloud: Arc<BTreeSet<TaskName>>,
}

impl Reaches {
    pub(crate) fn of(config: &Config) -> Self {
        let allowed = config.tasks.iter().filter(|(_, task)| task.consent == Consent::Allowed);
        Self { default_task: config.default_task.clone(), cloud: Arc::new(allowed.map(|(n, _)| n.clone()).collect()) }
    }

    /// How far the text of a prompt may go.
    pub(crate) fn prompt(&self, prompt: &Prompt) -> Reach {
        let task = prompt.task.as_ref().unwrap_or(&self.default_task);
        if self.cloud.contains(task) && !prompt.local { Reach::Cloud } else { Reach::Host }
    }
}
