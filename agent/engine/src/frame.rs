//! Frames: a u32 length in little-endian order, then that many bytes of CBOR.
//!
//! Invariants: no more than [`FRAME_BYTES_MAX`] bytes are read or kept for one frame, whatever the length says; no
//! error repeats what was inside a frame, because that may be text of a prompt.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use tidegate_schemas::{ESCALATION_BYTES_MAX, MESSAGES_MAX, OUTCOME_BYTES_MAX, PROMPT_BYTES_MAX, TASK_BYTES_MAX, cbor};

/// Largest body of a frame, in bytes: a prompt with its task, or an answer, with room to spare for keys and numbers.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// What one message of a chat costs beside its text, in bytes: the keys `role` and `content`, heads, the role.
const MESSAGE_FRAMING_BYTES: usize = 64;
/// Room for job, limits and map keys, in bytes.
const SLACK_BYTES: usize = 4 * 1024;

const _: () = assert!(
    FRAME_BYTES_MAX >= PROMPT_BYTES_MAX + TASK_BYTES_MAX + MESSAGES_MAX * MESSAGE_FRAMING_BYTES + SLACK_BYTES,
    "a run with the largest prompt and task fits a frame"
);
const _: () = assert!(FRAME_BYTES_MAX >= OUTCOME_BYTES_MAX + SLACK_BYTES, "the longest answer fits a frame");
const _: () = assert!(FRAME_BYTES_MAX >= ESCALATION_BYTES_MAX + SLACK_BYTES, "so does what a worker is asked");
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize, "a length fits its four bytes");

/// Bytes of the length before each body.
pub const LENGTH_BYTES: usize = 4;

/// Why bytes are not a frame. The messages never repeat what was inside.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit; nothing of the body was read.
    #[error("frame is {len} bytes, limit is {FRAME_BYTES_MAX}")]
    TooLarge {
        /// What the length says, in bytes.
        len: usize,
    },
    /// The stream ended within a frame.
    #[error("stream ended within a frame")]
    Truncated,
    /// The body is not CBOR of the expected message.
    #[error("frame of {len} bytes is no message of this protocol")]
    Malformed {
        /// Bytes of the body.
        len: usize,
    },
    /// The stream failed.
    #[error("frame stream: {0}")]
    Io(#[from] io::Error),
}

/// Checks a length as it stands before a body.
///
/// # Errors
/// Over [`FRAME_BYTES_MAX`].
pub fn decode_length(head: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let len = u32::from_le_bytes(head) as usize;
    if len > FRAME_BYTES_MAX { Err(FrameError::TooLarge { len }) } else { Ok(len) }
}

/// A whole frame, length and body, for an asynchronous writer.
///
/// # Panics
/// When the message is over [`FRAME_BYTES_MAX`]: senders hold the limits of `tidegate_schemas`, which fit.
#[must_use]
pub fn encode_frame<T: Serialize>(message: &T) -> Vec<u8> {
    let body = cbor::to_vec(message);
    assert!(body.len() <= FRAME_BYTES_MAX, "frame is {} bytes, limit is {FRAME_BYTES_MAX}", body.len());
    let mut frame = Vec::with_capacity(LENGTH_BYTES + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).expect("the limit fits in four bytes").to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// A message from a body whose length an asynchronous reader has checked with [`decode_length`].
///
/// # Errors
/// Over the limit, or not CBOR of a `T`.
pub fn decode_frame<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match cbor::from_slice(body, FRAME_BYTES_MAX) {
        Ok(message) => Ok(message),
        Err(cbor::CborError::TooLarge { len, .. }) => Err(FrameError::TooLarge { len }),
        Err(cbor::CborError::Malformed { .. }) => Err(FrameError::Malformed { len: body.len() }),
    }
}

/// Writes one frame and flushes it.
///
/// # Errors
/// What the writer says; `InvalidInput` when the message is over [`FRAME_BYTES_MAX`], with nothing written.
pub fn write_frame<T: Serialize>(writer: &mut impl Write, message: &T) -> io::Result<()> {
    let body = cbor::to_vec(message);
    if body.len() > FRAME_BYTES_MAX {
        let what = FrameError::TooLarge { len: body.len() };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    writer.write_all(&u32::try_from(body.len()).expect("the limit fits in four bytes").to_le_bytes())?;
    writer.write_all(&body)?;
    writer.flush()
}

/// Reads one frame; none when the stream ends before its first byte.
///
/// # Errors
/// Over the limit, ended within, not CBOR of a `T`, or what the reader says.
pub fn read_frame<T: DeserializeOwned>(reader: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut head = [0; LENGTH_BYTES];
    match read_up_to(reader, &mut head)? {
        0 => return Ok(None),
        LENGTH_BYTES => {}
        _ => return Err(FrameError::Truncated),
    }
    let mut body = vec![0; decode_length(head)?];
    if read_up_to(reader, &mut body)? < body.len() {
        return Err(FrameError::Truncated);
    }
    decode_frame(&body).map(Some)
}

/// Fills the buffer as far as the stream goes.
fn read_up_to(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
