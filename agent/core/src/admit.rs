//! May this prompt come in, and where does it go: run here, escalate at once, or be refused with a reason. Invariant:
//! what is admitted fits every limit, so an accepted prompt never has to be dropped.

use crate::interval::{Interval, Place, place};
use crate::route::Cloud;
use crate::site::Limits;
use crate::strain::Strain;
use tidegate_schemas::{ErrorCode, PROMPT_BYTES_MAX, Reason};

/// Shortest time that a device is asked to wait before it tries again, in milliseconds.
const RETRY_MS_MIN: u64 = 1_000;
/// Longest time that a device is asked to wait before it tries again, in milliseconds: room may come by an outcome
/// from the cloud, which no backlog predicts.
const RETRY_MS_MAX: u64 = 60_000;

/// What is asked of the gateway.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Asked {
    /// Bytes of the payload.
    pub bytes: u32,
    /// Time to live, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Predicted wait for a slot, in milliseconds.
    pub wait_ms: u64,
    /// Predicted time until the answer of this gateway, wait included.
    pub here: Interval,
    /// Whether the machine is to be spared.
    pub strain: Option<Strain>,
}

/// What is accepted and has no outcome yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupied {
    /// Prompts of all devices.
    pub entries: u32,
    /// Their bytes.
    pub bytes: u64,
    /// Prompts of the device that asks.
    pub device_entries: u32,
    /// Their bytes.
    pub device_bytes: u64,
}

/// Why a prompt does not come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The code on the wire.
    pub code: ErrorCode,
    /// The fact, with value and limit.
    pub message: String,
    /// When trying again makes sense, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It comes in and runs on this gateway.
    RunHere,
    /// It comes in and goes to the cloud, unrun.
    EscalateNow(Reason),
    /// It does not come in.
    Refuse(Refusal),
}

/// Decides whether and where a prompt comes in.
#[must_use]
pub fn admit(asked: Asked, occupied: Occupied, limits: &Limits, cloud: Cloud) -> Admission {
    if asked.bytes as usize > PROMPT_BYTES_MAX {
        let message = format!("prompt is {} bytes, limit is {PROMPT_BYTES_MAX}", asked.bytes);
        return Admission::Refuse(Refusal { code: ErrorCode::TooLarge, message, retry_after_ms: None });
    }
    if let Some(message) = full(asked, occupied, limits) {
        let retry_after_ms = Some(asked.wait_ms.clamp(RETRY_MS_MIN, RETRY_MS_MAX));
        return Admission::Refuse(Refusal { code: ErrorCode::Busy, message, retry_after_ms });
    }
    match elsewhere(asked.here, cloud, asked.deadline_ms, asked.strain) {
        Some(reason) => Admission::EscalateNow(reason),
        None => Admission::RunHere,
    }
}

/// Why a prompt is better sent to the cloud than run here, if so: the cloud is the likelier to be in time, or this
/// machine is to be spared and the cloud is as likely.
#[must_use]
pub fn elsewhere(here: Interval, cloud: Cloud, left_ms: Option<u64>, strain: Option<Strain>) -> Option<Reason> {
    let there = cloud.reach()?;
    let left = left_ms.map(|ms| ms as f64);
    if place(here, Some(there), left) == Place::Cloud {
        return Some(Reason::TooSlow);
    }
    let as_likely = left.is_none_or(|left| there.chance(left) >= here.chance(left));
    (strain.is_some() && as_likely).then_some(Reason::Strained)
}

/// Which limit is reached, in words.
fn full(asked: Asked, occupied: Occupied, limits: &Limits) -> Option<String> {
    if occupied.device_entries >= limits.device_entries_max {
        let (have, max) = (occupied.device_entries, limits.device_entries_max);
        return Some(format!("device has {have} prompts without outcome, limit is {max}"));
    }
    let bytes = occupied.device_bytes.saturating_add(u64::from(asked.bytes));
    if bytes > limits.device_bytes_max {
        let max = limits.device_bytes_max;
        return Some(format!("device would have {bytes} bytes of prompts without outcome, limit is {max}"));
    }
    if occupied.entries >= limits.inbox_entries_max {
        let (have, max) = (occupied.entries, limits.inbox_entries_max);
        return Some(format!("inbox has {have} prompts, limit is {max}"));
    }
    let bytes = occupied.bytes.saturating_add(u64::from(asked.bytes));
    let max = limits.inbox_bytes_max;
    (bytes > max).then(|| format!("inbox would have {bytes} bytes, limit is {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked =
        Asked { bytes: 100, deadline_ms: Some(5_000), wait_ms: 1_000, here: exactly(1_500), strain: None };
    const FREE: Occupied = Occupied { entries: 0, bytes: 0, device_entries: 0, device_bytes: 0 };
    const UP: Cloud = Cloud::LinkUp { reach: Some(exactly(2_000)) };

    const fn exactly(ms: u64) -> Interval {
        Interval { low_ms: ms as f64, mid_ms: ms as f64, high_ms: ms as f64 }
    }

    fn limits() -> Limits {
        Limits {
            inbox_entries_max: 10,
            inbox_bytes_max: 1_000,
            device_entries_max: 3,
            device_bytes_max: 800,
            ..Limits::default()
        }
    }

    #[test]
    fn a_predicted_time_past_the_deadline_escalates_where_that_helps() {
        let check = |wait_ms: u64, deadline_ms: Option<u64>, cloud: Cloud, expect: Admission| {
            let got = admit(Asked { here: exactly(wait_ms + 500), deadline_ms, ..ASKED }, FREE, &limits(), cloud);
            assert_eq!(got, expect, "{wait_ms} {deadline_ms:?} {cloud:?}");
        };
        let slow = Admission::EscalateNow(Reason::TooSlow);
        check(4_500, Some(5_000), UP, Admission::RunHere);
        check(4_501, Some(5_000), UP, slow.clone());
        check(9_999, None, UP, Admission::RunHere);
        check(4_501, Some(5_000), Cloud::LinkDown, Admission::RunHere);
        check(4_501, Some(5_000), Cloud::LocalOnly, Admission::RunHere);
        check(4_501, Some(5_000), Cloud::NoCloud, Admission::RunHere);
        check(4_501, Some(1_999), UP, Admission::RunHere);
        check(4_501, Some(1_999), Cloud::LinkUp { reach: None }, slow);
    }

    #[test]
    fn a_strained_machine_gives_work_away_where_the_cloud_is_as_good() {
        let check = |deadline_ms: Option<u64>, cloud: Cloud, expect: Admission| {
            let asked = Asked { deadline_ms, strain: Some(Strain::Heat), ..ASKED };
            assert_eq!(admit(asked, FREE, &limits(), cloud), expect, "{deadline_ms:?} {cloud:?}");
        };
        let away = Admission::EscalateNow(Reason::Strained);
        check(None, UP, away.clone());
        check(Some(5_000), UP, away);
        check(Some(1_800), UP, Admission::RunHere);
        check(None, Cloud::LocalOnly, Admission::RunHere);
        check(None, Cloud::NoCloud, Admission::RunHere);
        check(None, Cloud::LinkDown, Admission::RunHere);
    }

    #[test]
    fn spread_counts_and_not_the_middle_alone() {
        let wide = Interval { low_ms: 1_000.0, mid_ms: 2_000.0, high_ms: 9_000.0 };
        let asked = Asked { here: wide, deadline_ms: Some(3_000), ..ASKED };
        assert_eq!(admit(asked, FREE, &limits(), UP), Admission::EscalateNow(Reason::TooSlow));
        let spread = Cloud::LinkUp { reach: Some(Interval { high_ms: 12_000.0, ..wide }) };
        assert_eq!(admit(asked, FREE, &limits(), spread), Admission::RunHere);
    }

    #[test]
    fn a_full_queue_refuses_with_value_limit_and_time() {
        let check = |occupied: Occupied, bytes: u32, code: ErrorCode, message: &str, retry: Option<u64>| {
            let Admission::Refuse(refusal) = admit(Asked { bytes, ..ASKED }, occupied, &limits(), UP) else {
                panic!("{occupied:?} with {bytes} bytes was admitted");
            };
            assert_eq!((refusal.code, refusal.message.as_str(), refusal.retry_after_ms), (code, message, retry));
        };
        let busy = ErrorCode::Busy;
        check(Occupied { entries: 10, ..FREE }, 1, busy, "inbox has 10 prompts, limit is 10", Some(1_000));
        check(Occupied { bytes: 901, ..FREE }, 100, busy, "inbox would have 1001 bytes, limit is 1000", Some(1_000));
        let message = "device has 3 prompts without outcome, limit is 3";
        check(Occupied { device_entries: 3, ..FREE }, 1, busy, message, Some(1_000));
        let message = "device would have 801 bytes of prompts without outcome, limit is 800";
        check(Occupied { device_bytes: 701, ..FREE }, 100, busy, message, Some(1_000));
        check(FREE, 65_537, ErrorCode::TooLarge, "prompt is 65537 bytes, limit is 65536", None);
        let fits = Occupied { entries: 9, bytes: 900, device_entries: 2, device_bytes: 700 };
        assert_eq!(admit(ASKED, fits, &limits(), UP), Admission::RunHere);
    }

    #[test]
    fn the_time_to_try_again_follows_the_backlog_within_bounds() {
        let check = |wait_ms: u64, expect: u64| {
            let occupied = Occupied { entries: 10, ..FREE };
            let Admission::Refuse(refusal) = admit(Asked { wait_ms, ..ASKED }, occupied, &limits(), UP) else {
                panic!("admitted at the limit");
            };
            assert_eq!(refusal.retry_after_ms, Some(expect));
        };
        check(0, 1_000);
        check(7_500, 7_500);
        check(10_000_000, 60_000);
    }
}
