//! Identifiers: `[A-Za-z0-9_.-]{1,64}`, checked before any topic is filled with them.

use crate::limits::ID_BYTES_MAX;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr, sync::Arc};

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No characters at all.
    #[error("{what} is empty, allowed are 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ . -")]
    Empty {
        /// Which identifier.
        what: &'static str,
    },
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("{what} is {len} bytes, allowed are 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ . -")]
    TooLong {
        /// Which identifier.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A character outside the alphabet.
    #[error("{what} has {found:?}, allowed are 1 to {ID_BYTES_MAX} of A-Z a-z 0-9 _ . -")]
    Character {
        /// Which identifier.
        what: &'static str,
        /// The first character that is not allowed.
        found: char,
    },
}

pub(crate) fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong { what, len: text.len() });
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
        Some(found) => Err(IdError::Character { what, found }),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.into()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                // The decoder names the field: only the predicate is needed, "is 65 bytes, allowed are …".
                text.parse().map_err(|e: IdError| {
                    let sentence = e.to_string();
                    serde::de::Error::custom(sentence.strip_prefix($what).unwrap_or(&sentence).trim_start())
                })
            }
        }
    };
}

identifier!(
    /// A place with one or more gateways.
    SiteId, "site"
);
identifier!(
    /// One gateway of a site.
    GatewayId, "gateway"
);
identifier!(
    /// One device of a gateway.
    DeviceId, "device"
);
identifier!(
    /// The requester's own id of a prompt, unique per device for `seen_keep`.
    PromptId, "id"
);
identifier!(
    /// A task template on the gateway.
    TaskName, "task"
);
identifier!(
    /// The name that answers and cards give a model.
    ModelName, "model"
);

/// The gateway's own number of an accepted prompt: unique and growing for the life of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
