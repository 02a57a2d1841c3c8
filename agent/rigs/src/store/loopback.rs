//! An ext4 file system in a file: holds nothing but the store, counts what is written to it, and can be filled to its
//! last byte. Needs root, `losetup`, `mkfs.ext4` and `mount`.

use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Bytes of a sector in the kernel's counts, whatever the device has.
const SECTOR_BYTES: u64 = 512;

/// A mounted file system; unmounted and detached when it is dropped.
pub(crate) struct Loopback {
    device: String,
    /// Where it is mounted.
    pub(crate) path: PathBuf,
}

impl Loopback {
    /// Makes a file system of that many MiB beside `path` and mounts it there.
    pub(crate) fn new(path: &Path, mib: u64) -> anyhow::Result<Self> {
        let image = path.with_extension("img");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).context("cannot make an image")?;
        std::fs::create_dir_all(path).context("cannot make a mount point")?;
        let device = said("losetup", &["--find", "--show", &image.display().to_string()])?;
        let disk = Self { device, path: path.to_owned() };
        // No blocks are set aside for root, who fills it; all tables are written now, none while something is measured.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        // Blocks as a card has them, where small file systems get smaller ones.
        said("mkfs.ext4", &["-q", "-F", "-b", "4096", "-m", "0", "-E", now, &disk.device])?;
        said("mount", &["-o", "noatime", &disk.device, &path.display().to_string()])?;
        Ok(disk)
    }

    /// Bytes written to the device so far, journal included; what is still in memory is written first.
    pub(crate) fn written_bytes(&self) -> anyhow::Result<u64> {
        said("sync", &["-f", &self.path.display().to_string()])?;
        let name = self.device.trim_start_matches("/dev/");
        let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).context("the device counts nothing")?;
        let sectors: u64 = stat.split_whitespace().nth(6).context("no count of writes")?.parse()?;
        Ok(sectors * SECTOR_BYTES)
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        let mut file = File::options().create(true).append(true).open(self.filler()).context("cannot fill the disk")?;
        let mut written = 0;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0x5a; size];
            loop {
                match file.write(&block) {
                    Ok(count) => written += count as u64,
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error).context("cannot fill the disk"),
                }
            }
        }
        Ok(written)
    }

    /// Frees what was filled.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.filler()).context("cannot free the disk")
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        let freed = unmount(&self.path).and_then(|()| said("losetup", &["-d", &self.device]).map(drop));
        // Whoever fails to clear up says so, and leaves it to a person.
        if let Err(error) = freed {
            eprintln!("{error:#}");
        }
    }
}

/// How long whoever was killed may take to let go of its files.
const RELEASE_MAX: Duration = Duration::from_secs(10);
/// How often to try meanwhile.
const RELEASE_LOOK: Duration = Duration::from_millis(50);

/// Unmounts what is mounted there; waits for those that still hold a file.
pub(super) fn unmount(path: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        match said("umount", &[&path.display().to_string()]) {
            Ok(_) => return Ok(()),
            Err(error) if error.to_string().contains("busy") && begin.elapsed() < RELEASE_MAX => {
                std::thread::sleep(RELEASE_LOOK);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Why this machine has no such file systems, if it has none.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a loop device needs root".to_owned());
    }
    let probe = tempfile::tempdir()
        .map_err(anyhow::Error::from)
        .and_then(|dir| Loopback::new(&dir.path().join("probe"), 8).map(drop));
    probe.err().map(|error| format!("{error:#}"))
}

/// What a program says; it must succeed.
fn said(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
