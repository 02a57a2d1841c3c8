//! What the door needs from the one who keeps prompts and outcomes. The door itself keeps nothing.

use bytes::Bytes;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use tidegate_schemas::{DeviceId, ErrorCode, JobId, Reply};

/// A future that a [`Keeper`] hands out.
pub type Kept<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The one who keeps. The door acknowledges a publish only after the keeper's word.
pub trait Keeper: Send + Sync + 'static {
    /// A publish on a prompt topic whose device the caller may use. Resolves when it is on disk, or refused.
    fn prompt(&self, submission: Submission) -> Kept<Verdict>;

    /// A publish on a control topic whose device the caller may use.
    fn control(&self, submission: Submission) -> Kept<Verdict>;

    /// A publish on a topic outside `tg`. None: it goes to the general side only. Else it goes there as well, and is
    /// acknowledged after both took it; an error says why it is not on disk.
    fn forward(&self, publish: Forwarding<'_>) -> Option<Kept<Result<(), &'static str>>> {
        let _ = publish;
        None
    }

    /// Stored outcomes of a device that no session acknowledged, oldest first, after `after`, at most `max`. Holds
    /// every outcome that was announced with `Door::outcome_ready` and not released.
    fn pending(&self, device: &DeviceId, after: Option<JobId>, max: usize) -> Kept<Vec<Outgoing>>;

    /// A session of the device acknowledged this outcome. May be told more than once.
    fn released(&self, device: &DeviceId, job: JobId);
}

/// A publish for the keeper.
#[derive(Clone)]
pub struct Submission {
    /// The device that the topic names; the publisher may use it.
    pub device: DeviceId,
    /// The payload as it came.
    pub payload: Bytes,
    /// Message Expiry of MQTT 5, in milliseconds.
    pub expiry_ms: Option<u64>,
    /// Where the outcome goes and with what: to be kept with the prompt, and given back with its frames. The door has
    /// checked that the publisher may have its replies there.
    pub reply: Reply,
    /// The user property `traceparent` of MQTT 5.
    pub traceparent: Option<String>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submission({}, {} bytes)", self.device, self.payload.len())
    }
}

/// A publish outside `tg`, offered to whoever carries it further.
#[derive(Clone, Copy)]
pub struct Forwarding<'p> {
    /// Who published it: the name that it proved, or `local`.
    pub source: &'p str,
    /// Its topic.
    pub topic: &'p str,
    /// The payload as it came; a view of the read buffer, to be copied by whoever keeps it.
    pub payload: &'p [u8],
    /// Whether it is retained.
    pub retain: bool,
    /// Message Expiry of MQTT 5, in milliseconds.
    pub expiry_ms: Option<u64>,
    /// The user property `tidegate-via` of MQTT 5: the gateways that it has passed.
    pub via: Option<&'p str>,
}

impl fmt::Debug for Forwarding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarding({} bytes)", self.payload.len())
    }
}

/// What became of a submission.
#[derive(Clone)]
pub enum Verdict {
    /// On disk, or done.
    Kept {
        /// Goes to the device's answer subscribers at QoS 0 before the acknowledgement.
        frame: Option<Bytes>,
    },
    /// Nothing of it was kept.
    Refused {
        /// Which refusal; gives the MQTT 5 reason code.
        code: ErrorCode,
        /// The fact, for the reason string. No text of a prompt.
        message: String,
        /// The `error` frame; goes to the device's answer subscribers before the acknowledgement.
        frame: Bytes,
    },
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept { .. } => f.write_str("Kept"),
            Self::Refused { code, .. } => write!(f, "Refused({code})"),
        }
    }
}

/// A stored outcome on its way to a device.
#[derive(Clone)]
pub struct Outgoing {
    /// Whose outcome.
    pub job: JobId,
    /// The exact bytes of its frame.
    pub payload: Bytes,
    /// Where it goes and with what.
    pub reply: Reply,
}

impl Outgoing {
    /// One that goes to its device's answer topic.
    #[must_use]
    pub fn new(job: JobId, payload: Bytes) -> Self {
        Self { job, payload, reply: Reply::default() }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({}, {} bytes)", self.job, self.payload.len())
    }
}

/// A frame that is not the first delivery of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ephemeral {
    /// QoS 0, dropped first when the device is slow: `accepted`, `token`.
    Lossy,
    /// QoS 1, not an outcome: a provisional answer.
    Provisional,
    /// QoS 1: a copy of a stored outcome, sent because it was fetched.
    Outcome,
}
