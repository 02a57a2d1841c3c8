//! llama.cpp as a library of this process: started once, its warnings sent to `tracing`, nothing below them.

use llama_cpp_2::llama_backend::LlamaBackend;
use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

/// Longest log line that is passed on, in characters.
const LOG_CHARS_MAX: usize = 300;

/// A warning that is wrong here: the sequences share one cache, which is larger than the window of each.
const SHARED_CACHE: &str = "possible training context overflow";

/// The library, started at the first call. It is never stopped: models of other threads may still use it.
pub(crate) fn backend() -> Result<&'static LlamaBackend, String> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let started = BACKEND.get_or_init(|| {
        forward_logs();
        #[cfg(feature = "dynamic-backends")]
        load_kernels()?;
        LlamaBackend::init().map_err(|e| format!("llama.cpp does not start: {e}"))
    });
    started.as_ref().map_err(Clone::clone)
}

/// Where the libraries with the processor's kernels lie, seen from the program's folder.
#[cfg(feature = "dynamic-backends")]
const KERNELS: &str = "../lib/tidegate";

/// Loads the kernels that are the best for this processor: each library says what it would be worth here.
#[cfg(feature = "dynamic-backends")]
fn load_kernels() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|e| format!("the program's folder is not known: {e}"))?;
    let folder = program.parent().unwrap_or(&program).join(KERNELS);
    if folder.to_str().is_none_or(|path| path.contains('\0')) || !folder.is_dir() {
        return Err(format!("no folder {}: the libraries with the processor's kernels are missing", folder.display()));
    }
    llama_cpp_2::llama_backend::load_backends_from_path(&folder);
    Ok(())
}

/// Points llama.cpp's log at [`forward`].
#[allow(unsafe_code)]
fn forward_logs() {
    // SAFETY: the callback lives as long as the program, needs no data, and never unwinds into C.
    unsafe {
        llama_cpp_sys_2::llama_log_set(Some(forward), std::ptr::null_mut());
        llama_cpp_sys_2::ggml_log_set(Some(forward), std::ptr::null_mut());
    }
}

/// Passes warnings and errors on. Continuations of earlier lines are left out: they are dots of progress.
#[allow(unsafe_code)]
unsafe extern "C" fn forward(level: llama_cpp_sys_2::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    let severe = level == llama_cpp_sys_2::GGML_LOG_LEVEL_ERROR;
    if !severe && level != llama_cpp_sys_2::GGML_LOG_LEVEL_WARN {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends in NUL and lives until this function returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line: String = text.trim().chars().filter(|c| !c.is_control()).take(LOG_CHARS_MAX).collect();
    if line.is_empty() || line.contains(SHARED_CACHE) {
        return;
    }
    // A subscriber that panics must not unwind into C.
    let logged = std::panic::catch_unwind(|| {
        if severe {
            tracing::error!(target: "llama.cpp", "{line}");
        } else {
            tracing::warn!(target: "llama.cpp", "{line}");
        }
    });
    drop(logged);
}
