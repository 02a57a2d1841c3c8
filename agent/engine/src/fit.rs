//! What a build and a model ask of a machine, told before anything is loaded.

use crate::fitting::advice;
use crate::gguf::Head;
use crate::load::plan;
use crate::memory::Memory;
use crate::model_file::{ModelFileError, head_of};
use crate::protocol::Start;
use std::ffi::CStr;

/// Memory that a model is predicted to take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The file, mapped, and what is copied out of it. All of it is read for each token.
    pub weights: u64,
    /// Everything together.
    pub total: u64,
}

/// How much memory an engine with these settings will take.
///
/// # Errors
/// The file cannot be read or is no whole model.
pub fn memory_needed(start: &Start) -> Result<MemoryNeed, ModelFileError> {
    let (head, bytes) = head_of(&start.model_path)?;
    let context_tokens = window(&head, start);
    let memory = Memory::predict(&head, bytes, plan(start, &head, context_tokens));
    Ok(MemoryNeed { weights: memory.weights, total: memory.total() })
}

/// What to do about a limit of memory that an engine with these settings is over: settings that would fit, in the words of
/// the configuration, or that none would.
///
/// # Errors
/// The file cannot be read or is no whole model.
pub fn settings_within(start: &Start, bytes_max: u64) -> Result<String, ModelFileError> {
    let (head, bytes) = head_of(&start.model_path)?;
    let context_tokens = window(&head, start);
    Ok(advice(&head, bytes, &Start { context_tokens, ..start.clone() }, bytes_max))
}

/// The window that is used: the model's own where that is smaller.
fn window(head: &Head, start: &Start) -> u32 {
    let trained = head.size("context_length").and_then(|size| u32::try_from(size).ok()).unwrap_or(u32::MAX);
    start.context_tokens.min(trained.max(1))
}

/// The instruction sets that the loaded code of llama.cpp uses, by its own words for them: `AVX2`, `DOTPROD`, …. To be
/// called in a process of its own: on a processor that lacks one the question itself may end in SIGILL.
#[must_use]
pub fn instruction_sets() -> Vec<String> {
    words(&system_info())
}

#[allow(unsafe_code)]
fn system_info() -> String {
    // SAFETY: the function returns a string that ends in NUL and lives until the next call; nobody else calls it.
    let text = unsafe { CStr::from_ptr(llama_cpp_sys_2::llama_print_system_info()) };
    text.to_string_lossy().into_owned()
}

/// The names that are set in `CPU : SSE3 = 1 | AVX = 1 | REPACK = 1 |`.
fn words(info: &str) -> Vec<String> {
    let pairs = info.split('|').filter_map(|part| part.rsplit(':').next()?.split_once('='));
    pairs.filter(|(_, value)| value.trim() == "1").map(|(name, _)| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_llama_cpp_are_read() {
        let info = "CPU : SSE3 = 1 | AVX = 1 | AVX512 = 0 | LLAMAFILE = 1 | OPENMP = 1 | ";
        assert_eq!(words(info), ["SSE3", "AVX", "LLAMAFILE", "OPENMP"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert!(!instruction_sets().is_empty(), "{}", system_info());
    }
}
