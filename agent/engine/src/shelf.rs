//! Computed prefixes on disk, so that the first prompt after a start finds its task's template as it was.
//!
//! Invariants: only templates of tasks lie here, never a prompt; a file is read by its owner alone, is whole by its
//! checksum before llama.cpp sees a byte of it, and belongs to exactly one model, one set of settings, one engine and one
//! run of tokens by its key; all files of one life have no more bytes than the budget, and [`tidy`] leaves no more of
//! earlier ones, so the folder holds at most twice that. What is wrong is computed and written again.

use crate::protocol::CacheType;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::token::LlamaToken;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First bytes of a file; the last of them counts changes of its layout.
const MAGIC: &[u8; 8] = b"tgprefx1";
/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;
/// Magic and key before the state, checksum after it.
const FRAME_BYTES: u64 = (MAGIC.len() + 2 * HASH_BYTES) as u64;
/// End of the names of these files.
const SUFFIX: &str = "prefix";
/// What computes a state and writes its bytes: another version may do either otherwise. A test compares it with the
/// workspace's manifest.
const ENGINE: &str = concat!("tidegate-engine ", env!("CARGO_PKG_VERSION"), ", llama-cpp-sys-2 0.1.160");
/// Most files that are looked at: far more than prefixes of two models.
const FILES_MAX: usize = 1_024;

/// What a state depends on beside its tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    /// SHA-256 of the model's file, hexadecimal.
    pub(crate) model: &'a str,
    /// How keys and values are stored.
    pub(crate) cache: CacheType,
    /// Window of one sequence: some models turn their positions otherwise in a longer one.
    pub(crate) context_tokens: u32,
    /// Whether values stand transposed, as they do without flash attention.
    pub(crate) attention: &'a str,
}

/// The folder, for one model and its settings.
pub(crate) struct Shelf {
    dir: PathBuf,
    settings: [u8; HASH_BYTES],
    bytes_left: u64,
}

/// Why a state is not taken from the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{bytes} bytes, allowed are {FRAME_BYTES} to {max}")]
    Size { bytes: u64, max: u64 },
    #[error("its checksum is that of other bytes")]
    Checksum,
    #[error("it is the state of another model, of other settings or tokens")]
    Key,
}

impl Shelf {
    /// A shelf in a folder that is there; `bytes_max` bounds each file, and all that are written through this shelf.
    pub(crate) fn new(dir: &Path, settings: Settings<'_>, bytes_max: u64) -> Self {
        let Settings { model, cache, context_tokens, attention } = settings;
        let words = format!("{ENGINE}\n{model}\n{cache:?}\n{context_tokens}\n{attention}\n");
        Self { dir: dir.to_owned(), settings: Sha256::digest(words).into(), bytes_left: bytes_max }
    }

    /// The state of these tokens; none where there is no file.
    pub(crate) fn load(&self, tokens: &[LlamaToken], bytes_max: u64) -> Result<Option<Vec<u8>>, Wrong> {
        let key = self.key(tokens);
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(self.path(&key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let (bytes, max) = (file.metadata()?.len(), bytes_max.saturating_add(FRAME_BYTES));
        if !(FRAME_BYTES..=max).contains(&bytes) {
            return Err(Wrong::Size { bytes, max });
        }
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        file.take(bytes).read_to_end(&mut content)?;
        checked(content, &key).map(Some)
    }

    /// Writes a state. One that stands there is written over; one that is cut by a power failure fails its checksum.
    pub(crate) fn save(&mut self, tokens: &[LlamaToken], state: &[u8]) -> Result<(), Wrong> {
        let (bytes, max) = (state.len() as u64 + FRAME_BYTES, self.bytes_left);
        if bytes > max {
            return Err(Wrong::Size { bytes, max });
        }
        let key = self.key(tokens);
        let path = self.path(&key);
        let mut file = create(&path)?;
        let sum = Sha256::new().chain_update(MAGIC).chain_update(key).chain_update(state).finalize();
        let parts = [MAGIC.as_slice(), &key, state, &sum];
        if let Err(error) = parts.iter().try_for_each(|part| file.write_all(part)) {
            // A piece of it helps nobody, and the disk may be full.
            create(&path)?;
            return Err(error.into());
        }
        self.bytes_left -= bytes;
        Ok(())
    }

    fn key(&self, tokens: &[LlamaToken]) -> [u8; HASH_BYTES] {
        let mut hash = Sha256::new().chain_update(self.settings);
        tokens.iter().for_each(|token| hash.update(token.0.to_le_bytes()));
        hash.finalize().into()
    }

    fn path(&self, key: &[u8]) -> PathBuf {
        let name: String = key[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(name).with_extension(SUFFIX)
    }
}

/// The state within a file's bytes, if they are whole and the right ones.
fn checked(mut content: Vec<u8>, key: &[u8]) -> Result<Vec<u8>, Wrong> {
    let end = content.len().checked_sub(HASH_BYTES).ok_or(Wrong::Checksum)?;
    let (body, sum) = content.split_at(end);
    if Sha256::digest(body).as_slice() != sum {
        return Err(Wrong::Checksum);
    }
    let begin = MAGIC.len() + key.len();
    if body.get(..begin) != Some(&[MAGIC.as_slice(), key].concat()) {
        return Err(Wrong::Key);
    }
    content.truncate(end);
    content.drain(..begin);
    Ok(content)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Removes the oldest files until the rest has at most so many bytes. Called before the confinement, which lets nothing
/// be removed.
pub(crate) fn tidy(dir: &Path, bytes_max: u64) -> io::Result<()> {
    let entries = std::fs::read_dir(dir)?.take(FILES_MAX).collect::<io::Result<Vec<_>>>()?;
    let ours = entries.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == SUFFIX));
    let mut files: Vec<_> = ours.filter_map(|path| Some((path.symlink_metadata().ok()?, path))).collect();
    files.sort_by_key(|(meta, _)| std::cmp::Reverse((meta.mtime(), meta.mtime_nsec())));
    let mut sum = 0_u64;
    for (meta, path) in files {
        sum = sum.saturating_add(meta.len());
        if sum > bytes_max {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The state of a sequence as bytes.
#[allow(unsafe_code)]
pub(crate) fn state_of(context: &LlamaContext<'_>, sequence: i32) -> Vec<u8> {
    let flags = LlamaStateSeqFlags::empty();
    let mut bytes = vec![0; context.state_seq_get_size_ext(sequence, flags)];
    // SAFETY: the buffer has the size that llama.cpp named for this sequence, which nothing changed since.
    let written = unsafe { context.state_seq_get_data_ext(bytes.as_mut_ptr(), sequence, flags) };
    bytes.truncate(written);
    bytes
}

/// Puts a state into a sequence; whether llama.cpp took it.
#[allow(unsafe_code)]
pub(crate) fn restore(context: &mut LlamaContext<'_>, sequence: i32, state: &[u8]) -> bool {
    // SAFETY: the bytes were written by `state_of` of the same version and passed their checksum; llama.cpp compares
    // its own sizes and types, and refuses what ends early.
    unsafe { context.state_seq_set_data_ext(state, sequence, LlamaStateSeqFlags::empty()) }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;
