//! Where the outcome of a prompt goes, as its MQTT 5 publish asked.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest Correlation Data that is kept with a prompt, in bytes: two UUIDs and a signature. It is held until the
/// outcome's keep time ended.
pub const CORRELATION_BYTES_MAX: usize = 256;

/// What MQTT 5 gives a request for its response (MQTT 5.0, 4.10.1). Kept with the prompt and with its outcome, so that
/// both still have it after a restart. Records without it are those of older versions and of 3.1.1.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Response Topic; none is the device's own answer topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Correlation Data, sent back with every frame.
    #[serde(default, with = "serde_bytes", skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Vec<u8>>,
}

impl Reply {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.topic.is_none() && self.correlation.is_none()
    }
}

/// Correlation Data are the client's: only their number is shown.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("topic", &self.topic)
            .field("correlation_bytes", &self.correlation.as_ref().map(Vec::len))
            .finish()
    }
}
