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
mod tests {
    use super::*;

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
