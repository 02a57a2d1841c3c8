//! The one clock of all rig processes: `CLOCK_MONOTONIC`, which every process of a host reads alike.

use rustix::time::{ClockId, clock_gettime};

/// A moment in microseconds of `CLOCK_MONOTONIC`; comparable across the processes of one boot.
pub(crate) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock starts at zero and grows");
    let nanos = u64::try_from(now.tv_nsec).expect("nanoseconds of a timespec are 0 to 999,999,999");
    seconds * 1_000_000 + nanos / 1_000
}
