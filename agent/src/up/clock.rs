//! The gateway's timeline: `CLOCK_BOOTTIME`, moved so far that every kept prompt lies on it.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tidegate_core::Now;
use tidegate_schemas::DEADLINE_MS_MAX;
use tidegate_spool::Stamp;

/// Where this boot begins on the timeline, in milliseconds: twice the longest deadline leaves room for all that may
/// still be open from before.
const BOOT_AT_MS: u64 = 2 * DEADLINE_MS_MAX;

/// This moment.
pub(super) fn now() -> Now {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Now(BOOT_AT_MS + seconds * 1000 + millis)
}

/// The moment of a stamp from the disk, as far as its age is known.
pub(super) fn of(stamp: &Stamp) -> Now {
    Now(now().0.saturating_sub(stamp.age_ms(&Stamp::now())))
}

/// From now until `then`.
pub(super) fn until(then: Now) -> Duration {
    Duration::from_millis(then.since(now()))
}
