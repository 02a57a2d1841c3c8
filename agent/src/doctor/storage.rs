//! The data directory: whose it is, what a synced write takes and what that means, room, format.

use super::finding::Finding;
use crate::config::Config;
use std::fs::{self, File, Metadata};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate_spool::{FORMAT, Limits, format_of};

const DATA: &str = "data";
const SYNC: &str = "sync";
const ROOM: &str = "room";
/// Writes whose median is told.
const SYNCS: usize = 32;
/// A sync that takes longer makes every acknowledgement slow: a card that is worn, or a disk on a network.
const SYNC_SLOW: Duration = Duration::from_millis(50);
/// A sync that is faster than any medium: nothing reached one. The fastest drives with power-loss protection take more.
const SYNC_UNREAL: Duration = Duration::from_micros(8);
/// Rights of group and others.
const OTHERS: u32 = 0o077;
const MIB: u64 = 1024 * 1024;

pub(super) fn all(config: &Config, runs: bool) -> Vec<Finding> {
    let mut findings = vec![data_dir(&config.data_dir, runs)];
    findings.extend(format(&config.data_dir));
    findings.extend([sync_time(&there(config)), room(config)]);
    findings
}

/// The data directory, or the nearest above it that is there.
fn there(config: &Config) -> PathBuf {
    config.data_dir.ancestors().find(|dir| dir.is_dir()).map_or(PathBuf::from("."), Path::to_path_buf)
}

fn data_dir(dir: &Path, runs: bool) -> Finding {
    const NEXT: &str = "give it to the user that runs the gateway: chown -R tidegate: DIR, chmod 700 DIR";
    let what = format!("directory {}", dir.display());
    let found = match fs::metadata(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::ok(DATA, format!("{what} is not there yet, the start makes it"));
        }
        Err(error) => return Finding::fault(DATA, format!("{what}: {error}"), NEXT),
        Ok(found) => found,
    };
    if !found.is_dir() {
        return Finding::fault(DATA, format!("{what} is a file"), "choose another data_dir");
    }
    if let Err(error) = writable(dir) {
        let read_only = error.kind() == std::io::ErrorKind::ReadOnlyFilesystem;
        let next = if read_only { "the disk is read-only: look at `dmesg`, then remount it writable" } else { NEXT };
        return Finding::fault(DATA, format!("{what}: {error}"), next);
    }
    owner(&found, what, runs)
}

fn owner(found: &Metadata, what: String, runs: bool) -> Finding {
    if found.mode() & OTHERS != 0 {
        let what = format!("{what} has mode {:o}: others may look at prompts and answers", found.mode() & 0o777);
        return Finding::warning(DATA, what, "chmod 700 it");
    }
    let us = rustix::process::geteuid().as_raw();
    match found.uid() == us {
        true => Finding::ok(DATA, format!("{what} is ours alone")),
        // Root looks after a gateway of another user.
        false if runs || us == 0 => Finding::ok(DATA, format!("{what} belongs to uid {} alone", found.uid())),
        false => {
            let what = format!("{what} belongs to uid {}, this is uid {us}", found.uid());
            Finding::fault(DATA, what, "run this as the gateway's user, or as root")
        }
    }
}

fn writable(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    File::create(&probe)?;
    fs::remove_file(probe)
}

/// Which version wrote the store.
fn format(dir: &Path) -> Option<Finding> {
    let found = format_of(dir)?;
    Some(match found.cmp(&FORMAT) {
        std::cmp::Ordering::Greater => {
            let what = format!("the store has format {found}, this version reads up to {FORMAT}");
            Finding::fault(
                "format",
                what,
                "install the version that wrote it, or a newer one; the store is left as it is",
            )
        }
        std::cmp::Ordering::Equal => Finding::ok("format", format!("the store has format {found}, as this version")),
        std::cmp::Ordering::Less => {
            Finding::ok("format", format!("the store has format {found}, the next start makes it {FORMAT}"))
        }
    })
}

/// How long a small write with its sync takes where the store lives, and what that means.
fn sync_time(there: &Path) -> Finding {
    match syncs(there) {
        Err(error) => {
            let what = format!("{} cannot be measured: {error}", there.display());
            Finding::warning(SYNC, what, "run this as the gateway's user, on a disk that can be written")
        }
        Ok(times) => judged(times[times.len() / 2], times[times.len() - 1]),
    }
}

fn judged(median: Duration, worst: Duration) -> Finding {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    // The store may take more than one sync for a group; a device that waits for each PUBACK sees one group at a time.
    let each = 1.0 / median.as_secs_f64().max(1e-9);
    let what = format!(
        "a synced write takes {:.2} ms (worst of {SYNCS}: {:.2}): a device that waits for each PUBACK gets at most {:.0} per \
         second; what comes at once shares a sync",
        ms(median),
        ms(worst),
        each
    );
    if median > SYNC_SLOW {
        return Finding::warning(SYNC, what, "use faster storage; a worn card or a disk on a network is slow");
    }
    if median < SYNC_UNREAL {
        let next = "is it memory, or a disk whose cache ignores flushes? then a power cut loses what was acknowledged";
        return Finding::warning(SYNC, what, next);
    }
    Finding::ok(SYNC, what)
}

/// Times of synced writes, sorted.
fn syncs(dir: &Path) -> std::io::Result<Vec<Duration>> {
    let path = dir.join(format!(".tidegate-doctor-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    let measured = (0..SYNCS).try_for_each(|_| {
        let start = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        times.push(start.elapsed());
        std::io::Result::Ok(())
    });
    fs::remove_file(&path)?;
    measured?;
    times.sort_unstable();
    Ok(times)
}

/// Free space against the floor, and against what the queues may come to hold.
fn room(config: &Config) -> Finding {
    let there = there(config);
    match rustix::fs::statvfs(&there) {
        Err(error) => {
            let what = format!("{} does not say its free space: {error}", there.display());
            Finding::warning(ROOM, what, "look at it with df")
        }
        Ok(found) => enough(found.f_bavail.saturating_mul(found.f_frsize), &config.spool),
    }
}

fn enough(free: u64, limits: &Limits) -> Finding {
    let Limits { inbox_bytes_max, outbox_bytes_max, outcomes_bytes_max, free_bytes_min, .. } = limits;
    let most =
        inbox_bytes_max + outbox_bytes_max + outcomes_bytes_max + limits.telemetry.bytes_max + limits.dead.bytes_max;
    let mib = |bytes: u64| bytes / MIB;
    if free < *free_bytes_min {
        let what = format!("{} MiB are free, under {} no prompt is accepted", mib(free), mib(*free_bytes_min));
        return Finding::fault(ROOM, what, "make room, or lower spool.free_mib_min");
    }
    if free - free_bytes_min < most {
        let what = format!("{} MiB are free, full queues would take {}: they fill up earlier", mib(free), mib(most));
        return Finding::warning(ROOM, what, "make room, or lower the bounds in [limits] and [spool]");
    }
    Finding::ok(ROOM, format!("{} MiB are free, full queues take {}", mib(free), mib(most)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_sync_says_how_many_acknowledgements_it_allows() {
        let ms = Duration::from_millis;
        let found = judged(ms(5), ms(9));
        assert_eq!(found.level, Level::Ok);
        assert!(found.what.contains("at most 200 per second"), "{}", found.what);
        assert_eq!(judged(ms(51), ms(90)).level, Level::Warning);
        assert_eq!(judged(Duration::from_micros(1), ms(1)).level, Level::Warning, "no medium is so fast");
    }

    #[test]
    fn room_is_judged_by_the_floor_and_by_full_queues() {
        let limits = Limits { free_bytes_min: 64 * MIB, ..Limits::default() };
        assert_eq!(enough(63 * MIB, &limits).level, Level::Fault);
        assert_eq!(enough(65 * MIB, &limits).level, Level::Warning);
        assert_eq!(enough(64 << 30, &limits).level, Level::Ok);
    }

    #[test]
    fn a_directory_that_others_may_read_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(data_dir(dir.path(), false).level, Level::Ok);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(data_dir(dir.path(), false).what.contains("mode 755"));
        let file = dir.path().join("file");
        File::create(&file).unwrap();
        assert_eq!(data_dir(&file, false).level, Level::Fault);
    }
}
