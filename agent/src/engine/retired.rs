//! The child before: it ends what it had begun, is told nothing new, and goes.

use super::life::{End, Life};
use super::supervisor::{EngineReport, EngineTask, Handover};
use tokio::sync::mpsc;
use tracing::{info, warn};

/// Tasks that wait for it: what was on its way when it was replaced.
const TASKS_MAX: usize = 64;

/// The way to a child that was replaced.
pub(super) struct Retired {
    pub(super) number: u64,
    tasks: mpsc::Sender<EngineTask>,
}

impl Retired {
    /// Lets it go on by itself.
    pub(super) fn new(life: Life) -> Self {
        let (tasks, inbox) = mpsc::channel(TASKS_MAX);
        let number = life.number;
        tokio::spawn(last_days(life, inbox));
        Self { number, tasks }
    }

    /// Passes a task on; one that is gone gets nothing, and whoever commands hears of that.
    pub(super) async fn pass(&self, task: EngineTask) {
        let _ = self.tasks.send(task).await;
    }
}

/// Until its last answer is written, and it was said that no more runs are coming.
async fn last_days(mut life: Life, mut inbox: mpsc::Receiver<EngineTask>) {
    let mut no_more = false;
    let end = loop {
        if no_more && life.under_way.is_empty() {
            break End::Stop;
        }
        let ended = tokio::select! {
            turn = life.wait() => life.take(turn).await,
            task = inbox.recv() => match task {
                None => break End::Stop,
                Some(task) => {
                    no_more |= matches!(task, EngineTask::Retire);
                    life.pass(task).await
                }
            },
        };
        if let Err(end) = ended {
            break end;
        }
    };
    let (child, reports, busy) = (life.number, life.reports.clone(), !life.under_way.is_empty());
    let handover = match life.end(end).await {
        End::Gone(why) if busy || !no_more => {
            warn!(child, %why, "the engine before is gone in the midst of its answers");
            Handover::Lost { child, why }
        }
        End::Gone(_) | End::Stop => {
            info!(child, "the engine before has ended what it began");
            Handover::Over { child }
        }
    };
    let _ = reports.send(EngineReport::Handover(handover)).await;
}
