//! What time it is at least, for certificates: the largest of the system clock, the last known good time on disk and the
//! build date, so that a gateway that wakes in 1970 does not lock its brokers out.
//!
//! The two statics say what this machine knows, as the kernel's own clocks do; whoever checks a certificate deep in a TLS
//! library has no other way to ask.

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_engine::clock::{Discipline, discipline};
use tidegate_spool::{BUILD_DATE_MS, WallClock, last_good_ms, set_wall_clock};

/// The last time that was known to be good, in milliseconds since 1970.
static FLOOR_MS: AtomicU64 = AtomicU64::new(BUILD_DATE_MS);

/// Looks at the clock, and tells the store what it is worth.
pub(crate) fn look() -> WallClock {
    let clock = match discipline() {
        Discipline::Synchronised => WallClock::Synchronised,
        Discipline::Free => WallClock::Free,
    };
    set_wall_clock(clock);
    if clock == WallClock::Synchronised {
        FLOOR_MS.fetch_max(system_ms(), Ordering::Relaxed);
    }
    clock
}

/// Takes up what an earlier run left in the data directory.
pub(crate) fn remember(data_dir: &Path) {
    FLOOR_MS.fetch_max(last_good_ms(data_dir), Ordering::Relaxed);
}

/// The system clock, whatever it is worth, in milliseconds since 1970.
pub(crate) fn system_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The latest time that is known, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    system_ms().max(FLOOR_MS.load(Ordering::Relaxed))
}

/// The time by which certificates are judged.
#[derive(Debug)]
pub(crate) struct LatestKnown;

impl TimeProvider for LatestKnown {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(now_ms())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_judged_by_the_latest_time_that_is_known() {
        let before = LatestKnown.current_time().unwrap();
        assert!(before.as_secs() >= BUILD_DATE_MS / 1000);
        // A day ahead of the system clock, as after a start in 1970.
        let ahead = system_ms() + 24 * 3600 * 1000;
        FLOOR_MS.fetch_max(ahead, Ordering::Relaxed);
        assert!(LatestKnown.current_time().unwrap().as_secs() >= ahead / 1000);
    }
}
