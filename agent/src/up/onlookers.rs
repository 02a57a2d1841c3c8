//! Who looks at prompts of the page. The page is a device of its own whose session lives in this process: its frames go
//! to a channel, and its outcome is released when it was shown, or when nobody looks any more; it stays stored, as all do.
//!
//! Invariant: no client may be this device: [`is_page`] is asked at the door.

use super::hub::Hub;
use super::message::Report;
use bytes::Bytes;
use std::collections::HashMap;
use tidegate_schemas::{DeviceId, JobId};
use tokio::sync::mpsc;

/// The device that the page is.
const PAGE_DEVICE: &str = "tidegate-page";
/// Places that stay for the outcome, and for a provisional answer before it, when tokens come faster than they are read.
const OUTCOME_PLACES: usize = 4;

/// The device that the page is.
pub(super) fn page_device() -> DeviceId {
    PAGE_DEVICE.parse().expect("the name is an identifier")
}

/// Whether a device is the page.
pub(super) fn is_page(device: &DeviceId) -> bool {
    device.as_str() == PAGE_DEVICE
}

/// The channels of open prompts.
#[derive(Debug, Default)]
pub(super) struct Onlookers {
    arriving: Option<mpsc::Sender<Bytes>>,
    open: HashMap<JobId, mpsc::Sender<Bytes>>,
}

impl Onlookers {
    /// A prompt is about to be handed to the dispatcher.
    pub(super) fn arrives(&mut self, frames: mpsc::Sender<Bytes>) {
        self.arriving = Some(frames);
    }

    /// It was handed over; what was not kept was refused, or had its outcome already.
    pub(super) fn arrived(&mut self) {
        self.arriving = None;
    }

    /// A prompt goes to the disk: if it is the page's, this is its job.
    pub(super) fn kept(&mut self, job: JobId) {
        if let Some(frames) = self.arriving.take() {
            self.open.insert(job, frames);
        }
    }

    /// A prompt is not ours any more.
    pub(super) fn gone(&mut self, job: JobId) {
        self.open.remove(&job);
    }

    /// Shows a frame that is no outcome; dropped when it is not read fast enough.
    pub(super) fn show(&self, job: JobId, frame: Bytes) {
        if let Some(frames) = self.open.get(&job).filter(|frames| frames.capacity() > OUTCOME_PLACES) {
            let _ = frames.try_send(frame);
        }
    }

    /// Shows the outcome: the last frame.
    fn end(&mut self, job: JobId, frame: Bytes) {
        if let Some(frames) = self.open.remove(&job) {
            let _ = frames.try_send(frame);
        }
    }
}

impl Hub {
    /// The outcome of a prompt of the page is on disk.
    pub(super) fn deliver_to_page(&mut self, job: JobId, device: &DeviceId) {
        match self.ready.remove(&job) {
            Some(outgoing) => self.onlookers.end(job, outgoing.payload),
            None => self.onlookers.gone(job),
        }
        let _ = self.hands.reports.send(Report::Released(device.clone(), job));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_misses_tokens_and_never_the_outcome() {
        let (frames, mut seen) = mpsc::channel(OUTCOME_PLACES + 2);
        let mut onlookers = Onlookers::default();
        onlookers.arrives(frames);
        onlookers.kept(JobId(1));
        onlookers.kept(JobId(2));
        (0..100).for_each(|_| onlookers.show(JobId(1), Bytes::from_static(b"token")));
        onlookers.end(JobId(1), Bytes::from_static(b"answer"));
        let mut shown = Vec::new();
        while let Some(frame) = seen.blocking_recv() {
            shown.push(frame);
        }
        assert_eq!(shown.len(), 3, "two tokens and the answer");
        assert_eq!(shown[2], "answer");
    }

    #[test]
    fn the_page_is_a_device_that_no_anonymous_client_is() {
        assert!(is_page(&page_device()));
        assert!(!PAGE_DEVICE.starts_with("local-"));
    }
}
