//! A model file, looked at without llama.cpp: what it says of itself, whether it is whole, its digest.
//!
//! Invariants: no byte of the file is trusted; each error is one sentence with the file, the value and the limit.

use crate::gguf::{Head, HeadError, read_head};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes per read when a file is digested.
const READ_BYTES: usize = 256 * 1024;
/// Longest model name, in bytes: what a `ModelName` may be.
const NAME_BYTES_MAX: usize = tidegate_schemas::ID_BYTES_MAX;

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
    /// `general.architecture`: `llama`, `qwen2`, ….
    pub architecture: String,
    /// `general.name`, or the file's name without its ending, as a valid `ModelName`.
    pub name: String,
    /// Context window that the model was trained for, in tokens.
    pub context_length: u32,
    /// Size of the file.
    pub bytes: u64,
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// It is not there or cannot be opened or read.
    #[error("model {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a whole GGUF file of a model.
    #[error("model {}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with value and limit.
        what: String,
    },
}

/// Reads metadata and digest of a model file.
///
/// # Errors
/// The file cannot be read, is no GGUF, is truncated, or its metadata is absurd.
pub fn inspect(path: &Path) -> Result<ModelFile, ModelFileError> {
    inspect_watched(path, &mut |_, _| {})
}

/// The same for whoever wants to see how far it has come: `progress` gets the bytes that were read, and all of them.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_watched(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<ModelFile, ModelFileError> {
    let (head, bytes) = head_of(path)?;
    let mut read = 0;
    let sha256 = digest(path, &mut || {
        read += READ_BYTES as u64;
        progress(read.min(bytes), bytes);
    })?;
    describe(path, &head, bytes, sha256)
}

pub(crate) fn describe(path: &Path, head: &Head, bytes: u64, sha256: String) -> Result<ModelFile, ModelFileError> {
    let invalid = |what: &str| ModelFileError::Invalid { path: path.to_owned(), what: what.to_owned() };
    if head.architecture().is_empty() {
        return Err(invalid("its metadata has no general.architecture"));
    }
    let context = head.size("context_length").ok_or_else(|| invalid("its metadata has no context_length"))?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(ModelFile {
        sha256,
        architecture: head.architecture().to_owned(),
        name: model_name(head.text("general.name").unwrap_or(""), &stem),
        context_length: u32::try_from(context).map_err(|_| invalid("its context_length is over 4294967295"))?,
        bytes,
    })
}

/// The head of a file and the file's size in bytes.
pub(crate) fn head_of(path: &Path) -> Result<(Head, u64), ModelFileError> {
    let file = open(path)?;
    let io = |source| ModelFileError::Io { path: path.to_owned(), source };
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(ModelFileError::Invalid { path: path.to_owned(), what: "it is not a regular file".to_owned() });
    }
    let head = read_head(BufReader::with_capacity(READ_BYTES, file), meta.len()).map_err(|e| match e {
        HeadError::Io(what) => io(std::io::Error::other(what)),
        other => ModelFileError::Invalid { path: path.to_owned(), what: other.to_string() },
    })?;
    Ok((head, meta.len()))
}

/// SHA-256 of a file; `progress` is called after each read.
pub(crate) fn digest(path: &Path, progress: &mut dyn FnMut()) -> Result<String, ModelFileError> {
    let mut file = open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = file.read(&mut buffer).map_err(|source| ModelFileError::Io { path: path.to_owned(), source })?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..n]);
        progress();
    }
}

fn open(path: &Path) -> Result<File, ModelFileError> {
    File::open(path).map_err(|source| ModelFileError::Io { path: path.to_owned(), source })
}

/// A text as a valid `ModelName`: other characters become `-`, the stem stands in for nothing, `model` for both.
fn model_name(name: &str, stem: &str) -> String {
    let valid = |text: &str| -> String {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
        text.trim().chars().map(allowed).take(NAME_BYTES_MAX).collect()
    };
    [valid(name), valid(stem)].into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| "model".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::model_name;

    #[test]
    fn any_general_name_becomes_a_valid_model_name() {
        for (name, stem, expect) in [
            ("Qwen2.5 0.5B Instruct", "x", "Qwen2.5-0.5B-Instruct"),
            ("", "tide-edge", "tide-edge"),
            ("  ", "", "model"),
            ("modèle", "x", "mod-le"),
        ] {
            let made = model_name(name, stem);
            assert_eq!(made, expect);
            made.parse::<tidegate_schemas::ModelName>().unwrap();
        }
        assert_eq!(model_name(&"a".repeat(500), "x").len(), 64);
    }
}
