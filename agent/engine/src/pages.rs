//! Gives back the pages of the program's own file that nobody looks at any more.
//!
//! Half of what a start reads of its program (command line, configuration, recovery, and what the kernel maps around
//! it) is not read again, but stays resident as long as memory is plenty. What is needed after all comes back by a
//! page fault from the page cache, in microseconds.

use std::fs;
use std::io;
use std::ops::Range;

/// Unmaps the pages of the running program's file that this process has not changed. What they hold stays the same:
/// the next look at one maps it again. Returns the bytes that were resident in them.
///
/// # Errors
/// There is no `/proc`, or the kernel refuses.
pub fn forget_program() -> io::Result<u64> {
    let program = std::env::current_exe()?;
    let found = unchanged(&fs::read_to_string("/proc/self/smaps")?, &program.to_string_lossy());
    let mut bytes = 0;
    for (range, resident) in found {
        forget(range)?;
        bytes += resident;
    }
    Ok(bytes)
}

#[allow(unsafe_code)]
fn forget(range: Range<usize>) -> io::Result<()> {
    let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(range.start);
    // SAFETY: the range is one whole mapping of the program's own file, which stays where it is as long as the process
    // lives. It cannot be written to, and the kernel counts no page in it that differs from the file: dropping them
    // changes no byte that anyone can read.
    let result = unsafe { libc::madvise(start, range.len(), libc::MADV_DONTNEED) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Mappings of that file that cannot be written to and hold no page of our own, with their resident bytes, from what
/// `/proc/self/smaps` says (proc(5)).
fn unchanged(smaps: &str, program: &str) -> Vec<(Range<usize>, u64)> {
    let mut found = Vec::new();
    let (mut range, mut resident) = (None, 0);
    for line in smaps.lines() {
        if let Some((place, mode, path)) = mapping(line) {
            range = Some(place).filter(|_| ["r-xp", "r--p"].contains(&mode) && path == program);
        } else if let Some(bytes) = kilobytes(line, "Rss:") {
            resident = bytes;
        } else if kilobytes(line, "Anonymous:") == Some(0) {
            found.extend(range.take().map(|range| (range, resident)));
        }
    }
    found
}

/// The first line of a mapping: its place, its mode and its file.
fn mapping(line: &str) -> Option<(Range<usize>, &str, &str)> {
    let (place, rest) = line.split_once(' ')?;
    let (start, end) = place.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    // Mode, offset, device and inode; then spaces, and the path, which may have spaces itself.
    let (mode, rest) = rest.split_once(' ')?;
    let path = rest.splitn(4, ' ').nth(3).unwrap_or_default().trim_start();
    Some((address(start)?..address(end)?, mode, path))
}

fn kilobytes(line: &str, key: &str) -> Option<u64> {
    let value = line.strip_prefix(key)?.trim().strip_suffix("kB")?;
    value.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 08:01 77                         /opt/my program
Rss:                   8 kB
Anonymous:             0 kB
3000-9000 r-xp 00002000 08:01 77                         /opt/my program
Rss:                  16 kB
Anonymous:             0 kB
9000-a000 r--p 00008000 08:01 77                         /opt/my program
Rss:                   4 kB
Anonymous:             4 kB
a000-b000 rw-p 00009000 08:01 77                         /opt/my program
Rss:                   4 kB
Anonymous:             0 kB
b000-c000 r-xp 00000000 08:01 78                         /lib/other
Rss:                   4 kB
Anonymous:             0 kB
c000-d000 r--p 00000000 00:00 0
Rss:                   0 kB
Anonymous:             0 kB
";

    #[test]
    fn only_unchanged_pages_of_the_program_are_forgotten() {
        let found = unchanged(SMAPS, "/opt/my program");
        assert_eq!(found, [(0x1000..0x3000, 8 * 1024), (0x3000..0x9000, 16 * 1024)]);
        assert_eq!(unchanged(SMAPS, "/opt/my"), []);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        assert!(forget_program().unwrap() > 0, "this test is resident");
        let again = forget_program().unwrap();
        assert!(again > 0, "what runs came back");
        let sum: u64 = (1..=1_000).map(|n: u64| format!("{n}").parse::<u64>().unwrap()).sum();
        assert_eq!(sum, 500_500);
    }
}
