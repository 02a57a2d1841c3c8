//! Where a prompt belongs in somebody's trace: the `traceparent` of W3C Trace Context 1
//! (<https://www.w3.org/TR/trace-context/#traceparent-header>), carried from the device to the worker and back, and put
//! in the logs on the way. It says nothing about the prompt.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr, sync::Arc};

/// Bytes of version 00: `00-TRACE_ID-PARENT_ID-FLAGS`.
const BYTES: usize = 55;

/// A `traceparent` of version 00, as it came.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceParent(Arc<str>);

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not of the form 00-TRACE_ID-PARENT_ID-FLAGS (32, 16 and 2 digits of 0-9 a-f, ids not all zero)")]
pub struct TraceError;

impl TraceParent {
    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that all spans of a trace share: what a log is searched for.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.0[3..35]
    }

    /// The id of the span that sent it.
    #[must_use]
    pub fn parent_id(&self) -> &str {
        &self.0[36..52]
    }

    /// What a hop sends on: the same trace and flags, and the id of the hop's own span as the new parent (W3C Trace
    /// Context 1, 3.4). Zero is no id; one is taken in its place.
    #[must_use]
    pub fn of_span(&self, span: u64) -> Self {
        Self(format!("{}{:016x}{}", &self.0[..36], span.max(1), &self.0[52..]).into())
    }
}

impl FromStr for TraceParent {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        let digits = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let id = |part: &str, len: usize| digits(part, len) && part.bytes().any(|b| b != b'0');
        let parts: Vec<&str> = if text.len() == BYTES { text.split('-').collect() } else { Vec::new() };
        match parts[..] {
            ["00", trace, parent, flags] if id(trace, 32) && id(parent, 16) && digits(flags, 2) => {
                Ok(Self(text.into()))
            }
            _ => Err(TraceError),
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_keeps_trace_and_flags_and_is_the_parent_of_the_next() {
        let came: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        assert_eq!(came.parent_id(), "b7ad6b7169203331");
        let sent = came.of_span(0xab);
        assert_eq!(sent.as_str(), "00-0af7651916cd43dd8448eb211c80319c-00000000000000ab-01");
        assert_eq!(sent.as_str().parse::<TraceParent>(), Ok(sent.clone()), "what is sent on is one again");
        assert_eq!(came.of_span(0).parent_id(), "0000000000000001");
    }

    #[test]
    fn only_what_the_recommendation_allows_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.parse::<TraceParent>().map(|t| t.trace_id().to_owned()), Ok(good[3..35].to_owned()));
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319cb-7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333é-1",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(TraceError), "{bad}");
        }
    }
}
