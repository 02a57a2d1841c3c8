//! The engine's process: dies with its parent, leaves no core, is the first that the kernel ends when memory is short,
//! and keeps its stdout for frames.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Added to the kernel's badness of this process, of at most 1,000: well before the gateway, which loses nothing when the
/// engine goes.
const OOM_SCORE: &str = "500";
/// The parent when this process began. The one static of the crate: a signal's action has no other place to look.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// Why the operating system refused.
pub(crate) struct Refused {
    pub(crate) what: &'static str,
    pub(crate) source: io::Error,
}

/// Applies all of it to this process.
pub(crate) fn harden() -> Result<(), Refused> {
    // Before the process stops being dumpable: after that /proc/self belongs to root. Without /proc nothing is lost.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::debug!(%error, "oom_score_adj stays");
    }
    checked("limit on core dumps", no_core())?;
    checked("no new privileges", control(libc::PR_SET_NO_NEW_PRIVS, 1))?;
    // A core_pattern that is a pipe ignores the limit on core dumps, but not this.
    checked("not dumpable", control(libc::PR_SET_DUMPABLE, 0))?;
    checked("death with the parent", die_with_parent())
}

/// Address space that is left for code, tables, the stacks of our two threads (64 MiB each) and what the main heap
/// reserves, in bytes.
const SPACE_BASE: u64 = 1024 * 1024 * 1024;
/// Address space of one more thread, in bytes: its stack and glibc's arena for it, which reserves 128 MiB while it is
/// made (`HEAP_MAX_SIZE`, aligned).
const SPACE_THREAD: u64 = 192 * 1024 * 1024;

/// Bounds the address space of this process: what is predicted, half of that again, and room for what is reserved and
/// never used. What runs away (a template, a schema, a model file that lies) ends this process instead of the machine.
#[allow(unsafe_code)]
pub(crate) fn limit_address_space(predicted: u64, threads: u32) -> Result<(), Refused> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = if threads == 0 { cores } else { u64::from(threads) };
    let space = predicted.saturating_add(predicted / 2).saturating_add(SPACE_BASE);
    let space = space.saturating_add(threads.saturating_mul(SPACE_THREAD));
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value that is written.
    checked("limit on address space", unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) })?;
    let space = space.min(limit.rlim_max);
    let limit = libc::rlimit { rlim_cur: space, rlim_max: space };
    // SAFETY: the pointer is to a live value and is only read.
    checked("limit on address space", unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) })
}

/// Loads what the C library would look for when a thread ends by itself, as those of OpenMP do: behind the confinement it
/// is not found any more, and the library says so on stderr and aborts the process. It stays loaded for good. A system
/// without it (musl) needs none.
#[allow(unsafe_code)]
pub(crate) fn load_unwinder() {
    // SAFETY: the name is a constant that ends in zero; the initialisers of libgcc have no conditions, and no other thread
    // runs yet.
    let loaded = unsafe { libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_NOW) };
    if loaded.is_null() {
        tracing::debug!("libgcc_s.so.1 is not there");
    }
}

/// Moves stdout to a descriptor of its own and points number 1 at stderr, so that no stray print of a library can stand
/// between frames.
#[allow(unsafe_code)]
pub(crate) fn take_stdout() -> Result<File, Refused> {
    // SAFETY: descriptors 1 and 2 are open in a process that is spoken to over pipes; `dup` makes a new one that nobody
    // else owns, and `dup2` replaces number 1 in one step.
    let frames = unsafe { libc::fcntl(io::stdout().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    checked("stdout", frames)?;
    // SAFETY: `frames` was just made and checked.
    let frames = unsafe { OwnedFd::from_raw_fd(frames) };
    // SAFETY: see above.
    checked("stdout to stderr", unsafe { libc::dup2(2, 1) })?;
    Ok(File::from(frames))
}

/// Whether stdin has something to read, or has ended, within this time.
#[allow(unsafe_code)]
pub(crate) fn readable_within(wait_ms: u64) -> Result<bool, Refused> {
    let mut stdin = libc::pollfd { fd: io::stdin().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let wait_ms = libc::c_int::try_from(wait_ms).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer is to one live element, as the count says.
    let ready = unsafe { libc::poll(&raw mut stdin, 1, wait_ms) };
    checked("waiting for stdin", ready)?;
    Ok(ready > 0)
}

fn checked(what: &'static str, result: libc::c_int) -> Result<(), Refused> {
    if result < 0 { Err(Refused { what, source: io::Error::last_os_error() }) } else { Ok(()) }
}

#[allow(unsafe_code)]
fn control(option: libc::c_int, value: libc::c_ulong) -> libc::c_int {
    // SAFETY: the options used here take one number and no pointer.
    unsafe { libc::prctl(option, value, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong) }
}

#[allow(unsafe_code)]
fn no_core() -> libc::c_int {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value and is only read.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) }
}

/// Asks for a signal when the parent goes. The kernel means the *thread* that spawned this process, which may end in a
/// healthy parent; so the signal only makes this process look whether its parent changed.
#[allow(unsafe_code)]
fn die_with_parent() -> libc::c_int {
    // SAFETY: `getppid` always succeeds; the action is a function that lives as long as the program and calls only
    // what is safe in a signal's action; the zeroed `sigaction` is valid: an empty mask and no flags.
    unsafe {
        PARENT.store(libc::getppid(), Ordering::SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = exit_without_parent as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        if libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()) < 0 {
            return -1;
        }
    }
    control(libc::PR_SET_PDEATHSIG, libc::SIGUSR2 as libc::c_ulong)
}

#[allow(unsafe_code)]
extern "C" fn exit_without_parent(_: libc::c_int) {
    // SAFETY: `getppid` and `_exit` may be called in a signal's action, and an atomic load too.
    unsafe {
        if libc::getppid() != PARENT.load(Ordering::SeqCst) {
            libc::_exit(0);
        }
    }
}
