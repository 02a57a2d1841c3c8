//! GGUF files (version 3) of metadata and made-up tensors, written as a stream: the largest has more bytes than a small
//! machine has memory to spare.

use crate::engine::blocks::{Kind, Random};
use anyhow::Context as _;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Bytes between tensors.
const ALIGNMENT: u64 = 32;
/// Bytes that are made up at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// What a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Ones, of f32.
    One,
    /// Random numbers of this type.
    Random(Kind),
}

/// A tensor to be made up.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    fill: Fill,
}

impl Tensor {
    /// Dimensions stand as GGUF has them: the length of a row first.
    pub(crate) fn new(name: impl Into<String>, dimensions: &[u32], fill: Fill) -> Self {
        Self { name: name.into(), dimensions: dimensions.iter().map(|d| u64::from(*d)).collect(), fill }
    }

    /// How many numbers it has.
    pub(crate) fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    fn kind(&self) -> Kind {
        match self.fill {
            Fill::One => Kind::F32,
            Fill::Random(kind) => kind,
        }
    }

    fn bytes(&self) -> u64 {
        let (numbers, bytes) = self.kind().block();
        self.elements() / numbers * bytes as u64
    }
}

/// Writes a file with these entries and tensors. Its values depend on the names of the tensors alone.
pub(crate) fn write(path: &Path, entries: Vec<(String, Value)>, tensors: &[Tensor]) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, file);
    let head = head(entries, tensors);
    file.write_all(&head)?;
    let mut at = pad(&mut file, head.len() as u64)?;
    for tensor in tensors {
        fill(&mut file, tensor).with_context(|| format!("cannot write {}", path.display()))?;
        at = pad(&mut file, at + tensor.bytes())?;
    }
    file.flush().with_context(|| format!("cannot write {}", path.display()))
}

/// Zeros up to the next multiple of the alignment; where that is.
fn pad(file: &mut impl Write, at: u64) -> std::io::Result<u64> {
    let end = at.next_multiple_of(ALIGNMENT);
    file.write_all(&vec![0; usize::try_from(end - at).expect("less than the alignment")])?;
    Ok(end)
}

fn fill(file: &mut impl Write, tensor: &Tensor) -> std::io::Result<()> {
    let Fill::Random(kind) = tensor.fill else {
        let ones = 1.0_f32.to_le_bytes().repeat(usize::try_from(tensor.elements()).expect("a row of norms"));
        return file.write_all(&ones);
    };
    let (_, block) = kind.block();
    let mut random = Random::new(tensor.name.bytes().fold(17, |hash, byte| hash * 31 + u64::from(byte)));
    let mut chunk = vec![0; CHUNK_BYTES / block * block];
    let mut left = tensor.bytes();
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        random.fill(&mut chunk[..len]);
        chunk[..len].chunks_exact_mut(block).for_each(|block| kind.tame(block));
        file.write_all(&chunk[..len])?;
        left -= len as u64;
    }
    Ok(())
}

fn head(entries: Vec<(String, Value)>, tensors: &[Tensor]) -> Vec<u8> {
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    for (key, entry) in entries {
        text(&mut head, &key);
        value(&mut head, entry);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut head, &tensor.name);
        head.extend(u32::try_from(tensor.dimensions.len()).expect("two at most").to_le_bytes());
        tensor.dimensions.iter().for_each(|size| head.extend(size.to_le_bytes()));
        head.extend(tensor.kind().number().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head
}

/// Types as the GGUF specification numbers them.
fn value(head: &mut Vec<u8>, value: Value) {
    let mut kind = |number: u32| head.extend(number.to_le_bytes());
    match value {
        Value::U32(number) => {
            kind(4);
            head.extend(number.to_le_bytes());
        }
        Value::F32(number) => {
            kind(6);
            head.extend(number.to_le_bytes());
        }
        Value::Bool(is) => {
            kind(7);
            head.push(is.into());
        }
        Value::Text(string) => {
            kind(8);
            text(head, &string);
        }
        Value::Texts(strings) => {
            [9, 8].into_iter().for_each(&mut kind);
            head.extend((strings.len() as u64).to_le_bytes());
            strings.iter().for_each(|string| text(head, string));
        }
        Value::I32s(numbers) => {
            [9, 5].into_iter().for_each(&mut kind);
            head.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| head.extend(number.to_le_bytes()));
        }
    }
}

fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(tensors: &[Tensor]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.gguf");
        let entries = vec![
            ("general.architecture".to_owned(), Value::Text("llama".to_owned())),
            ("tokenizer.ggml.tokens".to_owned(), Value::Texts(vec!["a".to_owned()])),
            ("b".to_owned(), Value::Bool(true)),
            ("i".to_owned(), Value::I32s(vec![-1, 2])),
        ];
        write(&path, entries, tensors).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn the_bytes_stand_where_the_specification_has_them() {
        let bytes = written(&[Tensor::new("one", &[3], Fill::One)]);
        assert_eq!(&bytes[..8], b"GGUF\x03\0\0\0");
        assert_eq!(bytes[8..24], [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[24..32], 20_u64.to_le_bytes());
        assert_eq!(bytes.len() % 32, 0);
        let ones = &bytes[bytes.len() - 32..];
        assert_eq!(ones[..12], [0, 0, 128, 63, 0, 0, 128, 63, 0, 0, 128, 63]);
        assert!(ones[12..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn tensors_over_a_chunk_are_whole_and_the_same_each_time() {
        let large = [Tensor::new("large", &[256, 12_000], Fill::Random(Kind::Q6K))];
        let (first, second) = (written(&large), written(&large));
        assert!(first == second);
        assert!(first.len() > 12_000 * 210);
    }
}
