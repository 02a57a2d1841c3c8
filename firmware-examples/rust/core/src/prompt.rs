//! What a device says, into CBOR: definite lengths, numbers in their shortest form, fields in the order of the schema.

use minicbor::Encoder;
use minicbor::encode::write::{Cursor, EndOfSlice};

type Sink<'b> = Encoder<Cursor<&'b mut [u8]>>;
type Put = Result<(), minicbor::encode::Error<EndOfSlice>>;

/// A prompt. Fields that are `None` or 0 are left out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prompt<'a> {
    /// `[A-Za-z0-9_.-]{1,64}`, unique per device for 24 hours.
    pub id: Option<&'a str>,
    /// Else the gateway's default task.
    pub task: Option<&'a str>,
    /// The question.
    pub input: &'a str,
    /// Else the task's.
    pub max_tokens: u32,
    /// Largest frame that this device takes.
    pub max_bytes: u32,
    /// Time to live from receipt.
    pub deadline_ms: u32,
    /// `token` frames are wanted.
    pub stream: bool,
    /// Never leaves the gateway.
    pub local: bool,
}

impl Prompt<'_> {
    /// Bytes written. `None`: `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut e = Encoder::new(Cursor::new(out));
        self.put(&mut e).ok()?;
        Some(e.writer().position())
    }

    fn put(&self, e: &mut Sink<'_>) -> Put {
        let numbers =
            [("max_tokens", self.max_tokens), ("max_bytes", self.max_bytes), ("deadline_ms", self.deadline_ms)];
        let flags = [("stream", self.stream), ("local", self.local)];
        let texts = [("id", self.id), ("task", self.task), ("input", Some(self.input))];
        let count = texts.iter().filter(|(_, v)| v.is_some()).count()
            + numbers.iter().filter(|(_, v)| *v > 0).count()
            + flags.iter().filter(|(_, v)| *v).count();
        e.map(count as u64)?;
        for (key, value) in texts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            e.str(key)?.str(value)?;
        }
        for (key, value) in numbers.into_iter().filter(|(_, value)| *value > 0) {
            e.str(key)?.u32(value)?;
        }
        for (key, value) in flags.into_iter().filter(|(_, value)| *value) {
            e.str(key)?.bool(value)?;
        }
        Ok(())
    }
}

/// For the topic `control`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Stop, if it is not final.
    Cancel,
    /// Send the outcome again.
    Fetch,
}

impl Control {
    /// Bytes written. `None`: `out` is too small.
    pub fn encode(self, id: &str, out: &mut [u8]) -> Option<usize> {
        let mut e = Encoder::new(Cursor::new(out));
        let op = if self == Self::Fetch { "fetch" } else { "cancel" };
        e.map(2).ok()?.str("op").ok()?.str(op).ok()?.str("id").ok()?.str(id).ok()?;
        Some(e.writer().position())
    }
}
