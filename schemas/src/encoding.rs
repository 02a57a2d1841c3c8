//! CBOR, JSON or bare text: told apart by the first bytes, answered as it was asked.

use crate::cbor::{self, CborError};
use crate::control::Control;
use crate::frame::Frame;
use crate::ids::PromptId;
use crate::limits::PROMPT_BYTES_MAX;
use crate::prompt::Prompt;
use crate::strict::{self, sentence};
use crate::tree::Tree;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// White space that may stand before a JSON object (RFC 8259 §2).
const JSON_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// How a device writes, and is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// A CBOR map.
    Cbor,
    /// A JSON object.
    Json,
    /// UTF-8 text: the prompt itself. Answered with exactly one message.
    Text,
}

/// Why a payload is no message. The text names the field, a number that is out of bounds, and the limit, never text
/// of the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Over [`PROMPT_BYTES_MAX`] or another limit of the caller's.
    #[error("payload is {len} bytes, limit is {max}")]
    TooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// No bytes at all, or only white space.
    #[error("payload is empty or blank, a message in CBOR, JSON or UTF-8 text is needed")]
    Empty,
    /// Neither a CBOR map, nor a JSON object, nor UTF-8.
    #[error("payload starts with byte 0x{first:02x} and is neither CBOR map, JSON object nor UTF-8 text")]
    Unknown {
        /// The first byte.
        first: u8,
    },
    /// A field has a wrong type or value.
    #[error("{}", sentence(path, what))]
    Field {
        /// The field, `.` for the whole.
        path: String,
        /// What is wrong with it.
        what: String,
        /// The id of the message, where it could be read all the same.
        id: Option<PromptId>,
    },
}

impl From<CborError> for DecodeError {
    fn from(error: CborError) -> Self {
        match error {
            CborError::TooLarge { len, max } => Self::TooLarge { len, max },
            CborError::Malformed { path, what } => Self::Field { path, what, id: None },
        }
    }
}

impl Encoding {
    /// Tells how a payload is written. `0xa0..=0xbf` opens a CBOR map and never valid UTF-8; `d9 d9 f7` is CBOR's
    /// self-description (RFC 8949 §3.4.6), no valid UTF-8 either.
    ///
    /// # Errors
    /// [`DecodeError::Empty`], also for nothing but white space, or [`DecodeError::Unknown`].
    pub fn of(payload: &[u8]) -> Result<Self, DecodeError> {
        let first = *payload.first().ok_or(DecodeError::Empty)?;
        if matches!(first, 0xa0..=0xbf) || payload.starts_with(&[0xd9, 0xd9, 0xf7]) {
            return Ok(Self::Cbor);
        }
        let text = std::str::from_utf8(payload).map_err(|_| DecodeError::Unknown { first })?;
        match text.trim_start_matches(JSON_SPACE).chars().next() {
            Some('{') => Ok(Self::Json),
            _ if text.trim().is_empty() => Err(DecodeError::Empty),
            _ => Ok(Self::Text),
        }
    }

    /// Writes a frame for a device that writes so. `None` for what a bare-text device does not get: everything but
    /// the outcome.
    #[must_use]
    pub fn frame(self, frame: &Frame) -> Option<Vec<u8>> {
        match self {
            Self::Cbor => Some(cbor::to_vec(frame)),
            Self::Json => Some(json(frame)),
            Self::Text => bare_line(frame),
        }
    }

    /// Decodes a value of a structured encoding.
    fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, DecodeError> {
        match self {
            Self::Cbor => Ok(cbor::from_slice(payload, PROMPT_BYTES_MAX)?),
            Self::Json => from_json(payload),
            Self::Text => Err(DecodeError::Field {
                path: ".".to_owned(),
                what: "is bare text, needed is a CBOR map or JSON object".to_owned(),
                id: None,
            }),
        }
    }
}

fn json(frame: &Frame) -> Vec<u8> {
    serde_json::to_vec(frame).expect("our frames have text keys and finite numbers, and memory takes what is written")
}

fn bare_line(frame: &Frame) -> Option<Vec<u8>> {
    match frame {
        Frame::Answer(answer) if !answer.provisional => Some(answer.body.to_line().reveal().as_bytes().to_vec()),
        Frame::Error(error) => Some(format!("!{}: {}", error.code, error.message).into_bytes()),
        Frame::Answer(_) | Frame::Accepted(_) | Frame::Token(_) => None,
    }
}

fn from_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    let field = |path: String, what: String| DecodeError::Field { path, what, id: None };
    let tree: Tree = serde_json::from_slice(payload).map_err(|e| field(".".to_owned(), e.to_string()))?;
    strict::read(tree).map_err(|fault| {
        let (path, what) = fault.into_parts();
        field(path, what)
    })
}

#[derive(Deserialize)]
struct OnlyId {
    id: Option<PromptId>,
}

/// Puts the id of the message into the error, so that the requester knows which of its prompts is meant.
fn with_id(encoding: Encoding, payload: &[u8], error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Field { path, what, .. } => {
            let id = encoding.decode::<OnlyId>(payload).ok().and_then(|o| o.id);
            DecodeError::Field { path, what, id }
        }
        other => other,
    }
}

fn checked_encoding(payload: &[u8]) -> Result<Encoding, DecodeError> {
    if payload.len() > PROMPT_BYTES_MAX {
        return Err(DecodeError::TooLarge { len: payload.len(), max: PROMPT_BYTES_MAX });
    }
    Encoding::of(payload)
}

/// Reads a prompt in any of the three encodings.
///
/// # Errors
/// What is wrong, with the field, the value and the limit; never text of the prompt.
pub fn decode_prompt(payload: &[u8]) -> Result<(Prompt, Encoding), DecodeError> {
    let encoding = checked_encoding(payload)?;
    if encoding == Encoding::Text {
        let text = std::str::from_utf8(payload).expect("Encoding::of found it to be UTF-8");
        return Ok((Prompt::bare(text), encoding));
    }
    let prompt = encoding.decode(payload).map_err(|e| with_id(encoding, payload, e))?;
    Ok((prompt, encoding))
}

/// Reads a control message, in CBOR or JSON.
///
/// # Errors
/// What is wrong, with the field, the value and the limit.
pub fn decode_control(payload: &[u8]) -> Result<(Control, Encoding), DecodeError> {
    let encoding = checked_encoding(payload)?;
    let control = encoding.decode(payload).map_err(|e| with_id(encoding, payload, e))?;
    Ok((control, encoding))
}
