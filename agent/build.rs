//! How the program `tidegate` is linked, so that the daemon stays small in memory.
//!
//! Daemon and engine are one file, but the daemon runs no C++. Linked dynamically, libstdc++, libgomp and libgcc_s are
//! mapped, relocated and initialised in the daemon too (1.5 MB); from their archives only the objects that are used come
//! in, and few of their pages are touched before a model is loaded. (The features of llama-cpp-sys-2 that do the same
//! put the archives into a Rust library, and so into every program and test that uses it.) Packed relative
//! relocations take 10 KiB where plain ones take 900, all of which are read at every start.
//!
//! Equal functions are folded into one (the many instances of serde's generic ones, mostly): 0.8 MB of 26.
//!
//! Where an archive or the support in glibc is missing, the program is linked as usual: only its memory differs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Libraries of the C++ compiler, and the archives that have the same.
const RUNTIMES: [(&str, &[&str]); 3] =
    [("stdc++", &["libstdc++.a"]), ("gomp", &["libgomp.a"]), ("gcc_s", &["libgcc_eh.a", "libgcc.a"])];
/// First glibc whose loader knows packed relative relocations (DT_RELR).
const GLIBC_PACKED: (u32, u32) = (2, 36);
/// First minor version of rustc that links x86-64 Linux with its own lld.
const RUST_LLD: u32 = 90;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let native = env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    if !native || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    if glibc().is_some_and(|version| version >= GLIBC_PACKED) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if rust_lld() {
        // No code of ours compares function addresses, which is what folding equal functions changes.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("runtimes");
    fs::create_dir_all(&folder).expect("OUT_DIR can be written to");
    for (name, archives) in RUNTIMES {
        stand_in(&folder, name, archives);
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
}

/// Puts a linker script in place of the shared library: the linker looks here before it looks where the compiler's are.
fn stand_in(folder: &Path, name: &str, archives: &[&str]) {
    let script = folder.join(format!("lib{name}.so"));
    let found: Option<Vec<PathBuf>> = archives.iter().map(|archive| find(archive)).collect();
    match found {
        Some(paths) => {
            let list = paths.iter().map(|path| format!("\"{}\"", path.display())).collect::<Vec<_>>().join(" ");
            fs::write(script, format!("GROUP ( {list} )\n")).expect("OUT_DIR can be written to");
        }
        // One of an earlier build may be there.
        None => drop(fs::remove_file(script)),
    }
}

/// Where the C compiler, which links, has that archive.
fn find(archive: &str) -> Option<PathBuf> {
    let said = output("cc", &[&format!("-print-file-name={archive}")])?;
    // One that it does not have it names as it was asked.
    Some(PathBuf::from(said)).filter(|path| path.is_absolute() && path.is_file())
}

/// Version of the C library.
fn glibc() -> Option<(u32, u32)> {
    let said = output("getconf", &["GNU_LIBC_VERSION"])?;
    let (major, minor) = said.strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether rustc links with its own lld, as it does on this target since 1.90; other linkers refuse to fold functions.
fn rust_lld() -> bool {
    let target = env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu");
    let said = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    let minor = said.and_then(|text| text.strip_prefix("rustc 1.")?.split('.').next()?.parse::<u32>().ok());
    target && minor.is_some_and(|minor| minor >= RUST_LLD)
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(arguments).output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}
