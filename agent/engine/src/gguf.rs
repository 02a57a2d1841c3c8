//! The head of a GGUF file: metadata and the places of its tensors, read in plain Rust.
//!
//! Invariants: nothing is allocated by a count or a length of the file before that is checked against a limit; the
//! tensors are not read, only compared with the size of the file.

use std::collections::BTreeMap;
use std::io::Read;

/// Most metadata entries. Files of 2026 have 20 to 60.
pub(crate) const ENTRIES_MAX: u64 = 4_096;
/// Most tensors. The largest mixtures have some thousands.
pub(crate) const TENSORS_MAX: u64 = 65_536;
/// Longest key or tensor name, in bytes.
pub(crate) const NAME_BYTES_MAX: u64 = 1_024;
/// Longest string value, in bytes: chat templates are the longest, at some tens of KiB.
pub(crate) const STRING_BYTES_MAX: u64 = 1024 * 1024;
/// Most elements of an array: four times the largest vocabulary's merges.
pub(crate) const ARRAY_ENTRIES_MAX: u64 = 4 * 1024 * 1024;
/// Longest metadata altogether, in bytes.
pub(crate) const HEAD_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most numbers of an array that are kept: one per layer is what matters.
const NUMBERS_KEPT_MAX: u64 = 1_024;
/// Largest alignment of the tensors, in bytes.
const ALIGNMENT_MAX: u64 = 64 * 1024;

/// Why the head of a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("it is not a GGUF file: it begins with {0:02x?} instead of \"GGUF\"")]
    Magic([u8; 4]),
    #[error("its GGUF version is {0}, this engine reads 2 and 3")]
    Version(u32),
    #[error("{what} is {value}, limit is {max}")]
    TooMany { what: &'static str, value: u64, max: u64 },
    #[error("it ends within its metadata, after {0} bytes")]
    Ended(u64),
    #[error("{what} is {value}, which GGUF does not know")]
    Unknown { what: &'static str, value: u64 },
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    #[error("it is truncated: tensor {tensor} ends at byte {end}, the file has {have}")]
    Truncated { tensor: String, end: u64, have: u64 },
    #[error("it could not be read: {0}")]
    Io(String),
}

/// A metadata value, as far as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Number(u64),
    Text(String),
    /// The numbers of a short array.
    Numbers(Vec<u64>),
    /// Elements of an array that is not kept.
    Array(u64),
    /// Something whose value does not matter here: floats, booleans, negative numbers.
    Other,
}

/// What the head of a file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    pub(crate) values: BTreeMap<String, Value>,
    /// Bytes of tensors by GGML type.
    pub(crate) tensor_bytes: BTreeMap<u32, u64>,
}

impl Head {
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        match self.values.get(key) {
            Some(Value::Number(n)) => Some(*n),
            Some(Value::Numbers(list)) => list.iter().max().copied(),
            _ => None,
        }
    }

    /// The name of the architecture, which prefixes the keys of its sizes.
    pub(crate) fn architecture(&self) -> &str {
        self.text("general.architecture").unwrap_or("")
    }

    /// A number under the architecture's prefix.
    pub(crate) fn size(&self, key: &str) -> Option<u64> {
        self.number(&format!("{}.{key}", self.architecture()))
    }
}

/// Reads the head from the first byte on; `file_bytes` is what the file has in all.
pub(crate) fn read_head(source: impl Read, file_bytes: u64) -> Result<Head, HeadError> {
    let mut cursor = Cursor { source, at: 0 };
    let magic = cursor.bytes::<4>()?;
    if &magic != b"GGUF" {
        return Err(HeadError::Magic(magic));
    }
    let version = cursor.u32()?;
    if !(2..=3).contains(&version) {
        return Err(HeadError::Version(version));
    }
    let tensors = limited("number of tensors", cursor.u64()?, TENSORS_MAX)?;
    let entries = limited("number of metadata entries", cursor.u64()?, ENTRIES_MAX)?;
    let mut values = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.text("metadata key", NAME_BYTES_MAX)?;
        let kind = cursor.u32()?;
        values.insert(key, cursor.value(kind)?);
    }
    let mut head = Head { values, tensor_bytes: BTreeMap::new() };
    read_tensors(&mut cursor, &mut head, tensors, file_bytes)?;
    Ok(head)
}

fn read_tensors(
    cursor: &mut Cursor<impl Read>,
    head: &mut Head,
    tensors: u64,
    file_bytes: u64,
) -> Result<(), HeadError> {
    let alignment = limited("alignment", head.number("general.alignment").unwrap_or(32), ALIGNMENT_MAX)?;
    if !alignment.is_power_of_two() {
        return Err(HeadError::Unknown { what: "alignment", value: alignment });
    }
    let mut last = (String::new(), 0);
    for _ in 0..tensors {
        let tensor = cursor.tensor()?;
        *head.tensor_bytes.entry(tensor.kind).or_default() += tensor.bytes;
        let end = tensor.offset.checked_add(tensor.bytes).ok_or(HeadError::TooMany {
            what: "offset of a tensor",
            value: tensor.offset,
            max: u64::MAX - tensor.bytes,
        })?;
        if end >= last.1 {
            last = (tensor.name, end);
        }
    }
    let end = cursor.at.next_multiple_of(alignment).saturating_add(last.1);
    if tensors > 0 && end > file_bytes {
        return Err(HeadError::Truncated { tensor: last.0, end, have: file_bytes });
    }
    Ok(())
}

fn limited(what: &'static str, value: u64, max: u64) -> Result<u64, HeadError> {
    if value > max { Err(HeadError::TooMany { what, value, max }) } else { Ok(value) }
}

struct Tensor {
    name: String,
    kind: u32,
    offset: u64,
    bytes: u64,
}

/// Reads numbers and strings, and knows how far it has come.
struct Cursor<R> {
    source: R,
    at: u64,
}

impl<R: Read> Cursor<R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), HeadError> {
        limited("length of the metadata in bytes", self.at + buffer.len() as u64, HEAD_BYTES_MAX)?;
        match self.source.read_exact(buffer) {
            Ok(()) => {
                self.at += buffer.len() as u64;
                Ok(())
            }
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(HeadError::Ended(self.at)),
            Err(e) => Err(HeadError::Io(e.to_string())),
        }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], HeadError> {
        let mut buffer = [0; N];
        self.fill(&mut buffer)?;
        Ok(buffer)
    }

    fn u32(&mut self) -> Result<u32, HeadError> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> Result<u64, HeadError> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    fn text(&mut self, what: &'static str, max: u64) -> Result<String, HeadError> {
        let len = limited(what, self.u64()?, max)?;
        let mut buffer = vec![0; usize::try_from(len).expect("the limits fit a usize")];
        self.fill(&mut buffer)?;
        String::from_utf8(buffer).map_err(|_| HeadError::Text(what))
    }

    /// Passes over a string: tokens of a vocabulary need not be UTF-8.
    fn skip_text(&mut self) -> Result<(), HeadError> {
        let len = limited("length of a string", self.u64()?, STRING_BYTES_MAX)?;
        self.skip(len)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), HeadError> {
        let mut left = bytes;
        let mut sink = [0; 4_096];
        while left > 0 {
            let n = left.min(sink.len() as u64) as usize;
            self.fill(&mut sink[..n])?;
            left -= n as u64;
        }
        Ok(())
    }

    fn value(&mut self, kind: u32) -> Result<Value, HeadError> {
        match kind {
            8 => self.text("length of a string", STRING_BYTES_MAX).map(Value::Text),
            9 => self.array(),
            _ => self.scalar(kind).map(|n| n.map_or(Value::Other, Value::Number)),
        }
    }

    /// A number; none for floats, booleans and negative numbers.
    fn scalar(&mut self, kind: u32) -> Result<Option<u64>, HeadError> {
        Ok(match kind {
            0 => Some(self.bytes::<1>()?[0].into()),
            1 => u64::try_from(i8::from_le_bytes(self.bytes()?)).ok(),
            2 => Some(u16::from_le_bytes(self.bytes()?).into()),
            3 => u64::try_from(i16::from_le_bytes(self.bytes()?)).ok(),
            4 => Some(self.u32()?.into()),
            5 => u64::try_from(i32::from_le_bytes(self.bytes()?)).ok(),
            6 => self.bytes::<4>().map(|_| None)?,
            7 => self.bytes::<1>().map(|_| None)?,
            10 => Some(self.u64()?),
            11 => u64::try_from(i64::from_le_bytes(self.bytes()?)).ok(),
            12 => self.bytes::<8>().map(|_| None)?,
            _ => return Err(HeadError::Unknown { what: "type of a metadata value", value: kind.into() }),
        })
    }

    fn array(&mut self) -> Result<Value, HeadError> {
        let kind = self.u32()?;
        let len = limited("length of an array", self.u64()?, ARRAY_ENTRIES_MAX)?;
        match kind {
            8 => (0..len).try_for_each(|_| self.skip_text()).map(|()| Value::Array(len)),
            9 => Err(HeadError::Unknown { what: "type of an array's elements", value: 9 }),
            _ if len <= NUMBERS_KEPT_MAX => {
                let numbers: Result<Vec<_>, _> = (0..len).map(|_| self.scalar(kind)).collect();
                Ok(Value::Numbers(numbers?.into_iter().flatten().collect()))
            }
            _ => self.skip(len * scalar_bytes(kind)?).map(|()| Value::Array(len)),
        }
    }

    fn tensor(&mut self) -> Result<Tensor, HeadError> {
        let name = self.text("length of a tensor's name", NAME_BYTES_MAX)?;
        let dimensions = limited("number of a tensor's dimensions", self.u32()?.into(), 4)?;
        let mut elements = 1_u64;
        for _ in 0..dimensions {
            let size = self.u64()?;
            elements = elements.checked_mul(size).filter(|n| *n <= 1 << 50).ok_or(HeadError::TooMany {
                what: "size of a tensor",
                value: size,
                max: 1 << 50,
            })?;
        }
        let kind = self.u32()?;
        let (block, block_bytes) =
            block_of(kind).ok_or(HeadError::Unknown { what: "type of a tensor", value: kind.into() })?;
        Ok(Tensor { name, kind, offset: self.u64()?, bytes: elements.div_ceil(block) * block_bytes })
    }
}

fn scalar_bytes(kind: u32) -> Result<u64, HeadError> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(HeadError::Unknown { what: "type of an array's elements", value: kind.into() }),
    }
}

/// Elements and bytes of a block, by GGML type as `ggml.h` numbers them.
pub(crate) fn block_of(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),       // F32
        1 | 30 => (1, 2),  // F16, BF16
        2 => (32, 18),     // Q4_0
        3 => (32, 20),     // Q4_1
        6 => (32, 22),     // Q5_0
        7 => (32, 24),     // Q5_1
        8 => (32, 34),     // Q8_0
        9 => (32, 36),     // Q8_1
        10 => (256, 84),   // Q2_K
        11 => (256, 110),  // Q3_K
        12 => (256, 144),  // Q4_K
        13 => (256, 176),  // Q5_K
        14 => (256, 210),  // Q6_K
        15 => (256, 292),  // Q8_K
        16 => (256, 66),   // IQ2_XXS
        17 => (256, 74),   // IQ2_XS
        18 => (256, 98),   // IQ3_XXS
        19 => (256, 50),   // IQ1_S
        20 => (32, 18),    // IQ4_NL
        21 => (256, 110),  // IQ3_S
        22 => (256, 82),   // IQ2_S
        23 => (256, 136),  // IQ4_XS
        24 => (1, 1),      // I8
        25 => (1, 2),      // I16
        26 => (1, 4),      // I32
        27 | 28 => (1, 8), // I64, F64
        29 => (256, 56),   // IQ1_M
        34 => (256, 54),   // TQ1_0
        35 => (256, 66),   // TQ2_0
        39 => (32, 17),    // MXFP4
        40 => (64, 36),    // NVFP4
        _ => return None,
    })
}
