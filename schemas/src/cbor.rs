//! CBOR: the only file that names `serde_cbor`, so that replacing it is a change of one file.

use crate::strict::{self, sentence};
use crate::tree::Tree;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Why bytes are not the CBOR of a `T`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// Over the caller's limit; nothing was decoded.
    #[error("message is {len} bytes, limit is {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not CBOR, or not of that shape.
    #[error("{}", sentence(path, what))]
    Malformed {
        /// The field, `.` for the whole.
        path: String,
        /// What is wrong with it, without text of the message.
        what: String,
    },
}

/// Encodes with text keys in declaration order: the same value gives the same bytes.
///
/// # Panics
/// Never for the types of this workspace: writing to memory cannot fail, and none of them has a failing `Serialize`.
#[must_use]
pub fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("our types serialise, and memory takes what is written")
}

/// Decodes a whole buffer of at most `max` bytes. A struct must be a map with text keys; nesting ends at 128 levels.
///
/// # Errors
/// Over the limit, not CBOR, another shape, or bytes left over.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CborError> {
    if bytes.len() > max {
        return Err(CborError::TooLarge { len: bytes.len(), max });
    }
    let mut source = serde_cbor::Deserializer::from_slice(bytes);
    let tree = Tree::deserialize(&mut source).and_then(|tree| source.end().map(|()| tree));
    let tree = tree.map_err(|e| CborError::Malformed { path: ".".to_owned(), what: e.to_string() })?;
    strict::read(tree).map_err(|fault| {
        let (path, what) = fault.into_parts();
        CborError::Malformed { path, what }
    })
}
