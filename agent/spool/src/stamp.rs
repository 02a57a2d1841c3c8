//! Moments that can be compared after a restart.
//!
//! While the machine is up, `CLOCK_BOOTTIME` tells ages, sleep included, whatever the wall clock does. Across a boot
//! only the wall clock is left; where it was not synchronised before and after, only the time since this boot is known.
//! An age is therefore never more than what passed, as far as that is knowable: items live longer, never shorter.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z in milliseconds: no build of this code is older, so a clock before it is wrong, whoever set it.
pub const BUILD_DATE_MS: u64 = 1_767_225_600_000;
/// What was last said of the wall clock. Like the clocks themselves it is one for the whole process; nobody asks before
/// it was said, and until then the clock is not believed.
static SYNCHRONISED: AtomicBool = AtomicBool::new(false);

/// What the wall clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WallClock {
    /// A time source corrects it.
    Synchronised,
    /// Nothing does, or nobody knows.
    Free,
}

/// Says what the wall clock is worth from now on; the operating system knows, and asking it takes what this crate does
/// not have.
pub fn set_wall_clock(clock: WallClock) {
    SYNCHRONISED.store(clock == WallClock::Synchronised, Ordering::Relaxed);
}

/// A moment, as far as this machine can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// Milliseconds since boot, suspended time included.
    pub boot_ms: u64,
    /// The kernel's random id of this boot; zeros where it cannot be read.
    #[serde(with = "serde_bytes")]
    pub boot_id: [u8; 16],
    /// Milliseconds since 1970 by the wall clock.
    pub wall_ms: u64,
    /// Whether the wall clock was to be believed: a time source corrected it, and it stood after the build date.
    pub wall_trusted: bool,
}

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let wall_ms = wall_ms();
        Self {
            boot_ms: boot_ms(),
            boot_id: boot_id(),
            wall_ms,
            wall_trusted: SYNCHRONISED.load(Ordering::Relaxed) && wall_ms >= BUILD_DATE_MS,
        }
    }

    /// Milliseconds from this moment to `now`, as far as they are known; zero when `now` is earlier.
    #[must_use]
    pub fn age_ms(&self, now: &Self) -> u64 {
        if self.boot_id == now.boot_id && now.boot_ms >= self.boot_ms {
            return now.boot_ms - self.boot_ms;
        }
        if self.boot_id == now.boot_id && self.boot_id != [0; 16] {
            return 0;
        }
        let by_wall = if self.wall_trusted && now.wall_trusted { now.wall_ms.saturating_sub(self.wall_ms) } else { 0 };
        // It is from an earlier boot, so at least this boot has passed.
        by_wall.max(now.boot_ms)
    }
}

/// By the C library, where a test can move it; a clock before 1970 was never set.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1000 + nanoseconds / 1_000_000
}

/// The kernel's id of this boot; it cannot change while the process lives, so it is read once.
fn boot_id() -> [u8; 16] {
    static BOOT_ID: OnceLock<[u8; 16]> = OnceLock::new();
    *BOOT_ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse_boot_id(&text).unwrap_or_default()
    })
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn stamp(boot: u8, boot_ms: u64, wall_ms: u64) -> Stamp {
        Stamp { boot_ms, boot_id: [boot; 16], wall_ms, wall_trusted: wall_ms >= BUILD_DATE_MS }
    }

    #[test]
    fn ages() {
        let w = BUILD_DATE_MS;
        let cases = [
            ("same boot", stamp(1, 1_000, w), stamp(1, 4_000, w), 3_000),
            ("same boot, the wall clock jumped a day", stamp(1, 1_000, w), stamp(1, 4_000, w + DAY), 3_000),
            ("same boot, the wall clock went back", stamp(1, 1_000, w + DAY), stamp(1, 4_000, w), 3_000),
            ("same boot, earlier", stamp(1, 4_000, w), stamp(1, 1_000, w + DAY), 0),
            ("other boot, clock set before and after", stamp(1, 9_000, w), stamp(2, 500, w + DAY), DAY),
            ("other boot, clock was not set before", stamp(1, 9_000, 5_000), stamp(2, 500, w + DAY), 500),
            ("other boot, clock is not set now", stamp(1, 9_000, w), stamp(2, 700, 5_000), 700),
            ("other boot, the wall clock went back", stamp(1, 9_000, w + DAY), stamp(2, 800, w), 800),
            ("no boot ids, time goes on", stamp(0, 1_000, w), stamp(0, 2_000, w + DAY), 1_000),
            ("no boot ids, it booted between", stamp(0, 9_000, w), stamp(0, 100, w + DAY), DAY),
        ];
        for (name, earlier, now, age) in cases {
            assert_eq!(earlier.age_ms(&now), age, "{name}");
        }
    }

    #[test]
    fn now_is_of_this_boot_and_grows() {
        let first = Stamp::now();
        let second = Stamp::now();
        assert_ne!(first.boot_id, [0; 16]);
        assert_eq!(first.boot_id, second.boot_id);
        assert!(second.boot_ms >= first.boot_ms);
        assert!(!first.wall_trusted, "nobody said that the clock is synchronised");
        set_wall_clock(WallClock::Synchronised);
        assert!(Stamp::now().wall_trusted, "the clock of the machine that runs the tests stands after the build date");
        set_wall_clock(WallClock::Free);
        assert!(!Stamp::now().wall_trusted);
    }

    #[test]
    fn boot_ids() {
        let text = "0b1f2c3d-0000-4000-8000-00000000000f\n";
        assert_eq!(parse_boot_id(text).unwrap()[..4], [0x0b, 0x1f, 0x2c, 0x3d]);
        for bad in ["", "xyz", "0b1f", "0b1f2c3d-0000-4000-8000-00000000000f00"] {
            assert_eq!(parse_boot_id(bad), None, "{bad}");
        }
    }
}
