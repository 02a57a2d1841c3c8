//! What the engine's process may still reach once it knows its model: that file, the
//! folder of computed prefixes, facts about the processor, nothing else.
//!
//! Invariants: applied in the main thread before any other is started, so that all inherit it; a kernel that lacks a part
//! leaves the others in force, and [`Confinement`] says which. Prompts and model files meet C++ only behind this.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;
use std::path::Path;

/// The newest rules that this code knows (Linux 6.12): files, TCP, abstract sockets, signals.
const RULES: ABI = ABI::V6;
/// What is read besides the model: the number of cores and the features of the processor.
const MACHINE: [&str; 4] = ["/sys/devices/system", "/proc/cpuinfo", "/proc/meminfo", "/proc/self"];

/// How far a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Files, TCP, abstract sockets and signals (Landlock).
    pub files: Part,
    /// System calls (seccomp).
    pub calls: Part,
}

/// One part of the confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All that this build knows is in force.
    Whole,
    /// The kernel knows some of it.
    Partly,
    /// The kernel lacks it.
    Absent,
}

/// Confines this thread and all that it will start to a model, and to the folder of computed prefixes if there is one.
#[must_use]
pub fn confine_to(model: &Path, prefixes: Option<&Path>) -> Confinement {
    // Landlock first: its own system calls are not on the list.
    let files = restrict_files(model, prefixes).unwrap_or(Part::Absent);
    Confinement { files, calls: restrict_calls() }
}

fn restrict_files(model: &Path, prefixes: Option<&Path>) -> Option<Part> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RULES))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(RULES)))
        .and_then(|rules| rules.scope(Scope::from_all(RULES)))
        .and_then(Ruleset::create);
    let rules = MACHINE.iter().map(Path::new).chain([model]).filter_map(readable);
    let rules = rules.chain(prefixes.and_then(writable));
    let status = ruleset.and_then(|rules_so_far| rules_so_far.add_rules(rules.map(Ok))).and_then(|r| r.restrict_self());
    status.ok().map(|status| match status.ruleset {
        RulesetStatus::FullyEnforced => Part::Whole,
        RulesetStatus::PartiallyEnforced => Part::Partly,
        RulesetStatus::NotEnforced => Part::Absent,
    })
}

/// A rule that lets a file be read, or a folder with all in it; none for what is not there.
fn readable(path: &Path) -> Option<PathBeneath<PathFd>> {
    let rights: BitFlags<AccessFs> =
        if path.is_dir() { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
    PathFd::new(path).ok().map(|opened| PathBeneath::new(opened, rights))
}

/// A rule that lets files of a folder be read, made and written over.
fn writable(folder: &Path) -> Option<PathBeneath<PathFd>> {
    let rights = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::Truncate;
    PathFd::new(folder).ok().map(|opened| PathBeneath::new(opened, rights))
}

fn restrict_calls() -> Part {
    let Some(program) = program() else { return Part::Absent };
    if seccompiler::apply_filter(&program).is_ok() { Part::Whole } else { Part::Absent }
}

/// Everything that is not on the list fails with EPERM: a library that tries something harmless goes on without it.
fn program() -> Option<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let rules: BTreeMap<i64, Vec<_>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).ok()?);
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).ok()?.try_into().ok()
}

/// What reading a file, computing in threads and speaking over pipes needs. No sockets, no new programs, no writing to
/// files but where Landlock allows it, no tracing of others.
#[rustfmt::skip]
const ALLOWED: [i64; 74] = [
    // Pipes and files that Landlock allows.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_close,
    libc::SYS_lseek, libc::SYS_openat, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_fcntl, libc::SYS_ioctl, libc::SYS_dup,
    libc::SYS_dup3, libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_getcwd, libc::SYS_ppoll, libc::SYS_pselect6,
    // Memory.
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect, libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk,
    libc::SYS_mlock, libc::SYS_munlock, libc::SYS_mincore, libc::SYS_mbind, libc::SYS_get_mempolicy,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_clone, libc::SYS_clone3, libc::SYS_futex, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_rseq, libc::SYS_set_tid_address, libc::SYS_sched_yield, libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler, libc::SYS_getpriority,
    libc::SYS_gettid, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_getcpu,
    // Signals and limits of its own.
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
    libc::SYS_tgkill, libc::SYS_restart_syscall, libc::SYS_prctl, libc::SYS_prlimit64, libc::SYS_getrlimit,
    libc::SYS_getrusage,
    // Clocks and chance.
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_times, libc::SYS_getrandom, libc::SYS_uname, libc::SYS_sysinfo,
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// Runs in a thread of its own, which alone is confined.
    fn confined<T: Send + 'static>(model: &Path, work: impl FnOnce(Confinement) -> T + Send + 'static) -> T {
        let model = model.to_owned();
        std::thread::spawn(move || work(confine_to(&model, None))).join().unwrap()
    }

    #[test]
    fn a_confined_thread_reads_its_model_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (model, other) = (dir.path().join("model"), dir.path().join("other"));
        std::fs::write(&model, "weights").unwrap();
        std::fs::write(&other, "secret").unwrap();
        let (whole, mine, others, writing) = confined(&model.clone(), move |confinement| {
            (confinement, std::fs::read(&model), std::fs::read(&other), std::fs::write(&model, "no"))
        });
        assert_eq!(mine.unwrap(), b"weights");
        if whole.files == Part::Absent {
            return assert!(landlock_is_absent(), "the kernel has Landlock, but it is not in force");
        }
        assert_eq!(others.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(writing.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn prefixes_are_written_in_their_folder_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("prefixes");
        std::fs::create_dir(&folder).unwrap();
        let (inside, beside) = (folder.join("a"), dir.path().join("b"));
        std::fs::write(&inside, "older and longer").unwrap();
        let (whole, written, read, fresh, other) = std::thread::spawn(move || {
            let whole = confine_to(Path::new("/proc/cpuinfo"), Some(&folder));
            let written = std::fs::write(&inside, "mine");
            (whole, written, std::fs::read(&inside), std::fs::write(folder.join("c"), ""), std::fs::write(beside, ""))
        })
        .join()
        .unwrap();
        written.unwrap();
        fresh.unwrap();
        assert_eq!(read.unwrap(), b"mine");
        if whole.files != Part::Absent {
            assert_eq!(other.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
    }

    /// Linux names the security modules that run here.
    fn landlock_is_absent() -> bool {
        let kernel = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        kernel.handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_err()
    }

    #[test]
    fn a_confined_thread_reaches_no_network_and_starts_no_program() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (confinement, tcp, program, thread) = confined(Path::new("/proc/cpuinfo"), move |confinement| {
            let program = std::process::Command::new("/bin/true").spawn().map(drop);
            let thread = std::thread::spawn(|| std::fs::read("/proc/cpuinfo").map(|text| !text.is_empty()));
            (confinement, std::net::TcpStream::connect(address).map(drop), program, thread.join())
        });
        assert_eq!(confinement.calls, Part::Whole);
        assert_eq!(tcp.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(program.unwrap_err().kind(), ErrorKind::PermissionDenied);
        // What it needs still works.
        assert!(thread.unwrap().unwrap());
    }
}
