//! Watches the gateway's queues from outside, through `tidegate status`.

use crate::clock::now_us;
use crate::draw::Sample;
use crate::world::status;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Pause between two looks: four a second draw an outage well and cost little.
const PAUSE: Duration = Duration::from_millis(250);

/// A thread that takes samples until it is told to stop.
pub(super) struct Watch {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Watch {
    /// Starts watching the gateway at a control socket; time counts from `begin_us`.
    pub(super) fn start(control: PathBuf, begin_us: u64) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while stopped.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let at_s = (now_us() - begin_us) as f64 / 1e6;
                samples.extend(status(&control).ok().and_then(|said| sample(at_s, &said)));
            }
            samples
        });
        Self { stop, thread }
    }

    /// Ends it and gives what it saw.
    pub(super) fn stop(self) -> Vec<Sample> {
        // It may have ended already; then there is nobody to tell.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_default()
    }
}

/// Reads the depths out of `tidegate status --json`: the gateway's `load`, wherever it stands.
pub(super) fn sample(at_s: f64, said: &Value) -> Option<Sample> {
    let load = [said, &said["load"], &said["queues"]].into_iter().find(|value| value["inbox"].is_object())?;
    let entries = |queue: &str| load[queue]["entries"].as_u64();
    Some(Sample { at_s, inbox: entries("inbox")?, outbox: entries("outbox")?, outcomes: entries("outcomes")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_read_from_the_status() {
        let load = serde_json::json!({"inbox": {"entries": 3}, "outbox": {"entries": 2}, "outcomes": {"entries": 1}});
        let expect = Sample { at_s: 1.5, inbox: 3, outbox: 2, outcomes: 1 };
        assert_eq!(sample(1.5, &load), Some(expect));
        assert_eq!(sample(1.5, &serde_json::json!({ "load": load })), Some(expect));
        assert_eq!(sample(1.5, &serde_json::json!({})), None);
    }
}
