//! The last wall-clock time that was known to be right, for a boot that begins without one. Written seldom: an hour of
//! certificates is nothing, an hour of writes to a card is.

use crate::directory;
use crate::stamp::Stamp;
use std::fs;
use std::path::{Path, PathBuf};

/// How much later the time must be before it is written again, in milliseconds.
const WRITE_AFTER_MS: u64 = 3600 * 1000;

/// The file `clock`.
#[derive(Debug)]
pub(crate) struct GoodTime {
    path: PathBuf,
    written_ms: u64,
}

impl GoodTime {
    pub(crate) fn open(store: &Path) -> Self {
        Self { path: store.join("clock"), written_ms: last_good_ms(store) }
    }

    /// Notes a time that is known to be good.
    pub(crate) fn note(&mut self, now: &Stamp) {
        if !now.wall_trusted || now.wall_ms < self.written_ms.saturating_add(WRITE_AFTER_MS) {
            return;
        }
        let text = now.wall_ms.to_string();
        let line = format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()));
        match directory::replace_file(&self.path, line.as_bytes()) {
            Ok(()) => self.written_ms = now.wall_ms,
            Err(error) => tracing::warn!(%error, "the last good time could not be noted"),
        }
    }
}

/// The last known good time that a store remembers, in milliseconds since 1970; zero where it knows none.
#[must_use]
pub fn last_good_ms(store: &Path) -> u64 {
    let text = fs::read_to_string(store.join("clock")).unwrap_or_default();
    let parsed = text.trim_end().split_once(' ').and_then(|(ms, crc)| {
        let whole = u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(ms.as_bytes());
        ms.parse().ok().filter(|_| whole)
    });
    parsed.unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(wall_ms: u64, wall_trusted: bool) -> Stamp {
        Stamp { wall_ms, wall_trusted, ..Stamp::default() }
    }

    #[test]
    fn only_a_good_time_is_noted_and_not_too_often() {
        let dir = tempfile::tempdir().unwrap();
        let mut good = GoodTime::open(dir.path());
        good.note(&at(9_000_000, false));
        assert_eq!(last_good_ms(dir.path()), 0, "nobody knows whether that was right");
        good.note(&at(9_000_000, true));
        good.note(&at(9_000_001, true));
        assert_eq!(last_good_ms(dir.path()), 9_000_000);
        GoodTime::open(dir.path()).note(&at(9_000_000 + WRITE_AFTER_MS, true));
        assert_eq!(last_good_ms(dir.path()), 9_000_000 + WRITE_AFTER_MS);
        GoodTime::open(dir.path()).note(&at(5, true));
        assert_eq!(last_good_ms(dir.path()), 9_000_000 + WRITE_AFTER_MS, "it never goes back");
        fs::write(dir.path().join("clock"), "9999999999999 00000000\n").unwrap();
        assert_eq!(last_good_ms(dir.path()), 0, "damage is nothing known");
    }
}
