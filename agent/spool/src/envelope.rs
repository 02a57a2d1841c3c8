//! How a record stands on disk: found by its magic, known by its key, ordered by its sequence number, proved by its
//! checksum. A record carries its own key, so that it can be read out of a database that no longer opens.
//!
//! ```text
//! magic f1 'T' 'g' version | form | class | job u64 | seq u64 | length u32 | crc32c u32 | body (CBOR)
//! ```
//! Numbers are big-endian. The checksum covers all before it and the body.

use tidegate_schemas::JobId;

/// Starts every record; the last byte is the version of the envelope.
pub(crate) const MAGIC: [u8; 4] = [0xf1, b'T', b'g', 1];
/// Version of the directory and of the classes in it. 1 had neither forwarded messages nor dead letters, 2 no chunks of
/// what is gone, 3 had no journal; all are read, and become 4 before anything is written.
pub(crate) const VERSION: u8 = 4;
/// Bytes before the body.
pub(crate) const HEADER_BYTES: usize = 30;
/// Largest body, in bytes: an escalation of 100 KiB with a provisional answer of 64 KiB, and room for the rest.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Attempts of a prompt.
    Attempts,
    /// The acknowledgement of an outcome.
    Released,
    /// A chunk of what is gone; its number is none of a job.
    Gone,
    /// The horizon: one record, at job 0.
    Horizon,
    /// A forwarded message; its number stands in the place of the job's.
    Forward,
    /// An escalation.
    Escalation,
    /// A prompt.
    Prompt,
    /// An outcome.
    Outcome,
    /// A dead letter; its number stands in the place of the job's.
    Dead,
}

impl Class {
    const ALL: [Self; 9] = [
        Self::Attempts,
        Self::Released,
        Self::Gone,
        Self::Horizon,
        Self::Forward,
        Self::Escalation,
        Self::Prompt,
        Self::Outcome,
        Self::Dead,
    ];

    /// The byte in keys and headers.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Attempts => b'a',
            Self::Released => b'd',
            Self::Gone => b'g',
            Self::Forward => b't',
            Self::Horizon => b'h',
            Self::Escalation => b'o',
            Self::Prompt => b'p',
            Self::Outcome => b'r',
            Self::Dead => b'x',
        }
    }

    /// The class of a byte in a key, a header or a file name.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.byte() == byte)
    }
}

/// The key of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) class: Class,
    pub(crate) job: JobId,
}

impl Key {
    pub(crate) fn new(class: Class, job: JobId) -> Self {
        Self { class, job }
    }

    /// The key in the tree: the class, then the job so that the tree's order is the order of the jobs.
    pub(crate) fn bytes(self) -> [u8; 9] {
        let mut bytes = [self.class.byte(); 9];
        bytes[1..].copy_from_slice(&self.job.0.to_be_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (class, job) = bytes.split_first()?;
        Some(Self { class: Class::of(*class)?, job: JobId(u64::from_be_bytes(job.try_into().ok()?)) })
    }
}

/// Where the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// In the record.
    Inline,
    /// In a file of its own, which is a whole record of form `Inline`; the body here is empty.
    File,
}

/// A record whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) key: Key,
    pub(crate) form: Form,
    /// Grows with every write of the store: of two records of a key the larger one is the later one.
    pub(crate) seq: u64,
    pub(crate) body: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.body.len()).expect("bodies are at most BODY_BYTES_MAX");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.push(if self.form == Form::Inline { 0 } else { 1 });
        bytes.extend_from_slice(&self.key.bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), self.body);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(self.body);
        bytes
    }

    /// Reads the record at the start of `bytes`; what follows it is left alone. `None` is damage, whatever it is.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        if header[..4] != MAGIC {
            return None;
        }
        let length = u32::from_be_bytes(header[22..26].try_into().ok()?) as usize;
        let body = rest.get(..length).filter(|b| b.len() <= BODY_BYTES_MAX)?;
        let crc = u32::from_be_bytes(header[26..30].try_into().ok()?);
        if crc32c::crc32c_append(crc32c::crc32c(&header[..26]), body) != crc {
            return None;
        }
        let form = match header[4] {
            0 => Form::Inline,
            1 => Form::File,
            _ => return None,
        };
        let seq = u64::from_be_bytes(header[14..22].try_into().ok()?);
        Some(Self { key: Key::parse(&header[5..14])?, form, seq, body })
    }

    /// The sequence number in a header that is known to be one.
    pub(crate) fn seq_of(record: &[u8]) -> Option<u64> {
        record.get(14..22)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// Bytes of the whole record.
    pub(crate) fn len(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classes() -> impl Strategy<Value = Class> {
        proptest::sample::select(Class::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(class in classes(), job: u64, seq: u64, body: Vec<u8>, tail: Vec<u8>) {
            let envelope = Envelope { key: Key::new(class, JobId(job)), form: Form::Inline, seq, body: &body };
            let mut bytes = envelope.encode();
            prop_assert_eq!(bytes.len(), envelope.len());
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(Envelope::decode(&bytes), Some(envelope));
        }

        #[test]
        fn a_flipped_bit_is_damage(body in proptest::collection::vec(any::<u8>(), 0..64), at: usize, bit in 0..8u32) {
            let key = Key::new(Class::Prompt, JobId(7));
            let mut bytes = Envelope { key, form: Form::Inline, seq: 1, body: &body }.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Envelope::decode(&bytes), None);
        }

        #[test]
        fn keys_sort_as_jobs(class in classes(), a: u64, b: u64) {
            let (x, y) = (Key::new(class, JobId(a)), Key::new(class, JobId(b)));
            prop_assert_eq!(x.bytes().cmp(&y.bytes()), a.cmp(&b));
            prop_assert_eq!(Key::parse(&x.bytes()), Some(x));
        }
    }

    #[test]
    fn a_cut_record_is_damage() {
        let key = Key::new(Class::Outcome, JobId(1));
        let bytes = Envelope { key, form: Form::File, seq: 3, body: b"abc" }.encode();
        for len in 0..bytes.len() {
            assert_eq!(Envelope::decode(&bytes[..len]), None, "{len} bytes");
        }
    }
}
