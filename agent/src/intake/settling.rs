//! Prompts and control messages whose fate is not known, in the order of arrival.

use crate::link::Incoming;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use tidegate_broker::{Kept, Verdict};
use tidegate_schemas::DeviceId;

/// One of them.
pub(super) struct Settled {
    /// What came; to be acknowledged.
    pub(super) message: Box<Incoming>,
    /// Whose it is.
    pub(super) device: DeviceId,
    /// Correlation Data, for the frame.
    pub(super) correlation: Option<Bytes>,
    /// What became of it; none for what is nobody's.
    pub(super) verdict: Option<Verdict>,
}

struct Entry {
    message: Box<Incoming>,
    device: DeviceId,
    verdict: Option<Kept<Verdict>>,
    settled: Option<Verdict>,
}

/// All of them; bounded by the Receive Maximum that the broker was told, and in MQTT 3.1.1 by the broker's own window.
#[derive(Default)]
pub(super) struct Settling(VecDeque<Entry>);

impl Settling {
    /// One more; without a verdict to wait for it only takes its place in the order.
    pub(super) fn push(&mut self, message: Box<Incoming>, device: DeviceId, verdict: Option<Kept<Verdict>>) {
        self.0.push_back(Entry { message, device, verdict, settled: None });
    }

    /// The oldest, once its fate is known. All are driven meanwhile, in their order, so that they reach the store in
    /// the order of arrival and share its syncs. Safe to drop.
    pub(super) async fn next(&mut self) -> Settled {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Settled> {
        for entry in &mut self.0 {
            if let Some(verdict) = &mut entry.verdict
                && let Poll::Ready(verdict) = verdict.as_mut().poll(context)
            {
                entry.verdict = None;
                entry.settled = Some(verdict);
            }
        }
        match self.0.front() {
            Some(front) if front.verdict.is_none() => {}
            _ => return Poll::Pending,
        }
        let Some(Entry { message, device, settled, .. }) = self.0.pop_front() else { return Poll::Pending };
        let correlation = message.correlation.clone();
        Poll::Ready(Settled { message, device, correlation, verdict: settled })
    }
}
