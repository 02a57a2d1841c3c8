//! Reads the fields of one packet body. Every read is checked against what is left.

use super::packet::Malformed;
use bytes::{Buf, Bytes};

const SHORT: Malformed = Malformed { reason: 0x81, what: "packet ends inside a field" };

pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if self.rest.len() < len {
            return Err(SHORT);
        }
        Ok(self.rest.split_to(len))
    }

    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        if self.rest.is_empty() { Err(SHORT) } else { Ok(self.rest.get_u8()) }
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        if self.rest.len() < 2 { Err(SHORT) } else { Ok(self.rest.get_u16()) }
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        if self.rest.len() < 4 { Err(SHORT) } else { Ok(self.rest.get_u32()) }
    }

    /// A packet identifier: never zero.
    pub(super) fn id(&mut self) -> Result<u16, Malformed> {
        match self.u16()? {
            0 => Err(Malformed::protocol("packet identifier is 0")),
            id => Ok(id),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::from(self.u16()?);
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Malformed::packet("text is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Malformed::packet("text has a NUL character"));
        }
        Ok(text.to_owned())
    }

    /// A variable byte integer of at most four bytes, in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        match varint(&self.rest)? {
            Some((value, len)) => {
                self.rest.advance(len);
                Ok(value)
            }
            None => Err(SHORT),
        }
    }
}

/// Reads a variable byte integer: value and length, `None` when bytes are missing.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if at > 0 && *byte == 0 {
                return Err(Malformed::packet("variable byte integer is longer than it needs to be"));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed::packet("variable byte integer has more than 4 bytes")) } else { Ok(None) }
}
