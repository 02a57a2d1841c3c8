//! The pieces of a streamed answer. The answer has it all: this is only to be shown.

use crate::cbor::Text;

/// Room for the text that is shown, in bytes.
const BYTES_MAX: usize = 512;

/// Puts `token` frames together.
#[derive(Debug)]
pub struct Stream {
    bytes: [u8; BYTES_MAX],
    len: usize,
    attempt: u32,
    next: u32,
    gap: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self { bytes: [0; BYTES_MAX], len: 0, attempt: 0, next: 0, gap: false }
    }
}

impl Stream {
    /// Whether there is something new to show. After a lost piece, or one that does not fit, nothing is added.
    pub fn add(&mut self, attempt: u32, seq: u32, text: Text<'_>) -> bool {
        if attempt < self.attempt {
            return false;
        }
        let anew = attempt > self.attempt;
        if anew {
            (self.attempt, self.len, self.next, self.gap) = (attempt, 0, 0, false);
        }
        if self.gap || seq < self.next {
            return anew;
        }
        let len = text.chunks().map(str::len).sum::<usize>();
        if seq > self.next || len > BYTES_MAX - self.len {
            self.gap = true;
            return anew;
        }
        for chunk in text.chunks() {
            self.bytes[self.len..self.len + chunk.len()].copy_from_slice(chunk.as_bytes());
            self.len += chunk.len();
        }
        self.next = seq + 1;
        true
    }

    /// What there is so far.
    #[must_use]
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}
