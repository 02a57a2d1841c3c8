//! Which directory holds the database. A generation is built under another name, renamed when it is whole and on
//! disk, and becomes the current one by the rename of `CURRENT`: at each step there is one that counts.

use crate::directory;
use crate::envelope::VERSION;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Quarantined directories that are kept for whoever wants to look; the oldest go first.
const QUARANTINED_MAX: usize = 3;

/// The newest format of a store that this version reads, and the one that it writes.
pub const FORMAT: u32 = VERSION as u32;

/// The format that a store was written in; none where there is no store, or where its pointer is damaged.
#[must_use]
pub fn format_of(store: &Path) -> Option<u32> {
    parse(&fs::read(store.join("CURRENT")).ok()?).map(|(version, _)| version)
}

/// What `CURRENT` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Current {
    /// There is no generation: a new store.
    None,
    /// This one counts.
    Generation(u64),
    /// A newer version wrote it.
    Newer(u32),
}

/// Reads which generation counts. Without a readable `CURRENT` it is the newest whole one: one that is renamed to its
/// name was whole before.
pub(crate) fn current(store: &Path) -> io::Result<Current> {
    let newest = numbers(store, "gen-")?.into_iter().max();
    let named = fs::read(store.join("CURRENT")).ok().and_then(|bytes| parse(&bytes));
    Ok(match named {
        Some((version, _)) if version > u32::from(VERSION) => Current::Newer(version),
        Some((_, number)) if path(store, number).is_dir() => Current::Generation(number),
        _ => newest.map_or(Current::None, Current::Generation),
    })
}

/// Writes the pointer anew where an earlier version wrote it; the records of all earlier versions are read as they are.
pub(crate) fn upgrade(store: &Path, number: u64) -> io::Result<()> {
    let named = fs::read(store.join("CURRENT")).ok().and_then(|bytes| parse(&bytes));
    if named == Some((VERSION.into(), number)) { Ok(()) } else { set_current(store, number) }
}

/// Makes a generation the one that counts.
pub(crate) fn set_current(store: &Path, number: u64) -> io::Result<()> {
    directory::replace_file(&store.join("CURRENT"), render(number).as_bytes())
}

fn render(number: u64) -> String {
    let text = format!("tidegate-spool {VERSION}\ngen-{number}\n");
    format!("{text}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Version and number; none when the checksum is wrong.
fn parse(bytes: &[u8]) -> Option<(u32, u64)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let split = text.trim_end_matches('\n').rfind('\n')? + 1;
    let (head, crc) = text.split_at(split);
    if u32::from_str_radix(crc.trim_end(), 16).ok()? != crc32c::crc32c(head.as_bytes()) {
        return None;
    }
    let mut lines = head.lines();
    let version = lines.next()?.strip_prefix("tidegate-spool ")?.parse().ok()?;
    let number = lines.next().and_then(|l| l.strip_prefix("gen-")?.parse().ok());
    // A newer version may name its generations otherwise.
    number.or((version > u32::from(VERSION)).then_some(0)).map(|n| (version, n))
}

/// Where a generation lies.
pub(crate) fn path(store: &Path, number: u64) -> PathBuf {
    store.join(format!("gen-{number}"))
}

/// Where a generation is built; nothing lies there before.
pub(crate) fn building(store: &Path, number: u64) -> io::Result<PathBuf> {
    let path = store.join(format!("gen-{number}.building"));
    directory::remove(&path)?;
    Ok(path)
}

/// Gives a whole and closed generation its name and makes it the current one.
pub(crate) fn finish(store: &Path, number: u64) -> io::Result<()> {
    let built = store.join(format!("gen-{number}.building"));
    directory::sync_whole(&built)?;
    directory::remove(&path(store, number))?;
    fs::rename(built, path(store, number))?;
    directory::sync(store)?;
    set_current(store, number)
}

/// Removes all generations but one, and what was being built.
pub(crate) fn remove_others(store: &Path, number: u64) -> io::Result<()> {
    let ours = format!("gen-{number}");
    for name in directory::names(store)?.iter().filter(|n| n.starts_with("gen-") && **n != ours) {
        directory::remove(&store.join(name))?;
    }
    match fs::remove_file(store.join("CURRENT.tmp")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => directory::sync(store),
    }
}

/// Sets a generation that does not count any more aside, under a name that was not used before.
pub(crate) fn quarantine(store: &Path, number: u64) -> io::Result<PathBuf> {
    let mut taken = numbers(store, "corrupt-")?;
    taken.sort_unstable();
    let target = store.join(format!("corrupt-{}", taken.last().map_or(1, |n| n + 1)));
    fs::rename(path(store, number), &target)?;
    directory::sync(store)?;
    let surplus = (taken.len() + 1).saturating_sub(QUARANTINED_MAX);
    for old in taken.into_iter().take(surplus) {
        directory::remove(&store.join(format!("corrupt-{old}")))?;
    }
    Ok(target)
}

fn numbers(store: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    Ok(directory::names(store)?.iter().filter_map(|n| n.strip_prefix(prefix)?.parse().ok()).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn current_is_read_back_and_a_damaged_one_is_none() {
        let text = render(7);
        assert_eq!(parse(text.as_bytes()), Some((VERSION.into(), 7)));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 2;
            assert_eq!(parse(&bytes), None, "byte {at}");
        }
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn a_newer_version_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let head = "tidegate-spool 9\nshelf-1\n";
        let text = format!("{head}{:08x}\n", crc32c::crc32c(head.as_bytes()));
        fs::write(dir.path().join("CURRENT"), text).unwrap();
        assert_eq!(current(dir.path()).unwrap(), Current::Newer(9));
        assert_eq!(format_of(dir.path()), Some(9));
    }

    #[test]
    fn without_a_readable_current_the_newest_whole_generation_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(current(dir.path()).unwrap(), Current::None);
        for name in ["gen-1", "gen-2", "gen-10.building"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(current(dir.path()).unwrap(), Current::Generation(2));
        set_current(dir.path(), 1).unwrap();
        assert_eq!(current(dir.path()).unwrap(), Current::Generation(1));
        remove_others(dir.path(), 1).unwrap();
        assert!(path(dir.path(), 1).is_dir() && !path(dir.path(), 2).exists());
    }
}
