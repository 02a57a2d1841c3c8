//! Whether the kernel's wall clock is disciplined: the one question that no safe interface answers.

use std::path::Path;

/// Error from which the kernel calls its clock unsynchronised, in microseconds (`NTP_PHASE_LIMIT`, 16 s; it grows by
/// 500 ppm since the last correction). The flag `STA_UNSYNC` is no measure: chronyd leaves it set unless `rtcsync` is on.
const ERROR_US_MAX: libc::c_long = 16_000_000;
/// What systemd-timesyncd leaves once it has set the clock; asked where the kernel may not be.
const TIMESYNC: &str = "/run/systemd/timesync/synchronized";

/// What the wall clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discipline {
    /// A time source corrects it.
    Synchronised,
    /// Nothing does, or nobody knows.
    Free,
}

/// Asks the kernel, else looks for the trace of systemd-timesyncd.
#[must_use]
pub fn discipline() -> Discipline {
    let synchronised = error_us().map_or_else(|| Path::new(TIMESYNC).exists(), |error| error < ERROR_US_MAX);
    if synchronised { Discipline::Synchronised } else { Discipline::Free }
}

/// The largest error that the clock may have, in microseconds; none where the kernel does not say.
#[allow(unsafe_code)]
fn error_us() -> Option<libc::c_long> {
    // SAFETY: `timex` holds numbers only, and all zeros ask the kernel to change nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `timex`, which lives on this stack.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    (result >= 0).then_some(state.maxerror)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_wrong_its_clock_may_be() {
        let error = error_us();
        assert!(error.is_none_or(|error| (0..=ERROR_US_MAX).contains(&error)), "{error:?}");
        let expect =
            error.is_some_and(|error| error < ERROR_US_MAX) || (error.is_none() && Path::new(TIMESYNC).exists());
        assert_eq!(discipline() == Discipline::Synchronised, expect);
    }
}
