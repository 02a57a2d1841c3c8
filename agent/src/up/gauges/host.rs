//! What the machine says of itself: memory, disk, temperature. Whatever a system does not tell is left out.

use super::sheet::{COUNTER, GAUGE, Sheet};
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::fs;
use std::path::Path;

/// Bytes of a unit in which `/proc` and meminfo count.
const KIB: u64 = 1024;
/// Ticks of a second in `/proc` (USER_HZ, proc(5)): 100 on every Linux that Debian builds for.
const TICKS_PER_S: f64 = 100.0;
/// Thermal zones that are looked at: boards have a dozen at most.
const ZONES_MAX: usize = 32;

/// The file system of the data directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    /// Free for this user, in bytes.
    pub(super) free: u64,
    /// In all, in bytes.
    pub(super) size: u64,
    /// Whether it takes writes.
    pub(super) writes: Writes,
}

/// Whether a file system takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// It does.
    Taken,
    /// It is mounted, or became, read-only.
    Refused,
}

/// The disk under a directory; none where the system does not say.
pub(super) fn disk(dir: &Path) -> Option<Disk> {
    let stat = statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    let writes = if stat.f_flag.contains(StatVfsMountFlags::RDONLY) { Writes::Refused } else { Writes::Taken };
    Some(Disk { free: bytes(stat.f_bavail), size: bytes(stat.f_blocks), writes })
}

/// The hottest zone, in degrees Celsius.
fn temperature() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten().take(ZONES_MAX);
    let read = zones.filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<f64>().ok());
    read.map(|millidegrees| millidegrees / 1000.0).reduce(f64::max)
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * KIB)
}

/// Resident memory of a process, in bytes.
fn resident(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    meminfo(&text, "VmRSS")
}

/// Writes what the machine says.
pub(super) fn write(sheet: &mut Sheet, engine_pid: u32, disk: Option<Disk>) {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut told = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            sheet.one(GAUGE, name, help, value);
        }
    };
    let available = meminfo(&memory, "MemAvailable");
    told("tidegate_host_memory_available_bytes", "Memory that programs can still get.", available);
    told("tidegate_host_memory_size_bytes", "Memory of the host.", meminfo(&memory, "MemTotal"));
    told("process_resident_memory_bytes", "Resident memory of the gateway, without its engine.", resident("self"));
    let engine = (engine_pid > 0).then(|| resident(&engine_pid.to_string())).flatten();
    told("tidegate_engine_resident_memory_bytes", "Resident memory of the engine.", engine);
    told("tidegate_disk_free_bytes", "Free room where the store lies.", disk.map(|disk| disk.free));
    told("tidegate_disk_size_bytes", "Size of the file system where the store lies.", disk.map(|disk| disk.size));
    if let Some(celsius) = temperature() {
        sheet.one(GAUGE, "tidegate_host_temperature_celsius", "The hottest thermal zone.", celsius);
    }
    if let Some(seconds) = processor_seconds() {
        let help = "Processor time of the gateway, without its engine.";
        sheet.one(COUNTER, "process_cpu_seconds_total", help, seconds);
    }
}

/// User and system time of this process.
fn processor_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / TICKS_PER_S)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_something() {
        let mut sheet = Sheet::default();
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.size > disk.free && disk.free > 0);
        write(&mut sheet, 0, Some(disk));
        for name in ["tidegate_host_memory_size_bytes", "process_resident_memory_bytes", "process_cpu_seconds_total"] {
            assert!(sheet.numbers().contains_key(name), "{}", sheet.text());
        }
        assert!(!sheet.numbers().contains_key("tidegate_engine_resident_memory_bytes"));
    }

    #[test]
    fn a_line_of_meminfo_is_in_bytes() {
        let text = "MemTotal:       16 kB\nMemAvailable:    2 kB\n";
        assert_eq!((meminfo(text, "MemAvailable"), meminfo(text, "Mem")), (Some(2048), None));
    }
}
