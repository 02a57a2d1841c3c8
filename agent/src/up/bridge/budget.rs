//! The bytes of a day over a metered link: how many went, and who may still go. The count outlives a restart in a small
//! file; it is lost at most with the last half minute.
//!
//! Counted are topics, payloads and properties of both directions, and for each packet what TCP/IP, TLS and the
//! acknowledgement add. The day is that of the system clock, in UTC.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_schemas::{Budget as Told, BudgetState};

/// What a packet costs besides its bytes: TCP/IP twice (40), a TLS record twice (22), the acknowledgement (4).
const PACKET_BYTES: u64 = 128;
/// How often the count is written at most: the medium wears, and half a minute of traffic is no great loss.
const SAVE_EVERY: Duration = Duration::from_secs(30);
const DAY_S: u64 = 86_400;

/// Who asks to go, with the percentage of the budget up to which they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payer {
    /// Telemetry of this priority, 0 to 9.
    Telemetry(u8),
    /// An escalation.
    Escalation,
}

impl Payer {
    fn percent_max(self) -> u64 {
        match self {
            Self::Telemetry(0..=2) => 60,
            Self::Telemetry(3..=6) => 80,
            Self::Telemetry(_) => 95,
            Self::Escalation => 100,
        }
    }
}

/// The count of a day.
#[derive(Debug)]
pub(super) struct Budget {
    max: Option<u64>,
    file: PathBuf,
    day: u64,
    used: u64,
    saved: Option<Instant>,
}

impl Budget {
    /// With what the file knows of today; no limit needs no file.
    pub(super) fn open(max: Option<u64>, file: PathBuf) -> Self {
        let mut budget = Self { max, file, day: today(SystemTime::now()), used: 0, saved: None };
        if max.is_some()
            && let Ok(text) = fs::read_to_string(&budget.file)
            && let Some((day, used)) = parse(&text)
            && day == budget.day
        {
            budget.used = used;
        }
        budget
    }

    /// A packet crossed.
    pub(super) fn pay(&mut self, bytes: usize) {
        if self.max.is_some() {
            self.turn(SystemTime::now());
            self.used += PACKET_BYTES + bytes as u64;
        }
    }

    /// Whether they may go now.
    pub(super) fn allows(&self, payer: Payer) -> bool {
        self.max.is_none_or(|max| self.used < max / 100 * payer.percent_max())
    }

    /// A new day begins with nothing used.
    pub(super) fn turn(&mut self, now: SystemTime) {
        let day = today(now);
        if day != self.day {
            (self.day, self.used) = (day, 0);
        }
    }

    /// Writes the count if it is time; a disk that refuses costs accuracy only.
    pub(super) fn save(&mut self, now: Instant) {
        if self.max.is_none() || self.saved.is_some_and(|at| now.duration_since(at) < SAVE_EVERY) {
            return;
        }
        self.saved = Some(now);
        let fresh = self.file.with_extension("new");
        let written = fs::write(&fresh, format!("{} {}\n", self.day, self.used));
        if let Err(error) = written.and_then(|()| fs::rename(&fresh, &self.file)) {
            tracing::warn!(path = %self.file.display(), %error, "the bytes of the day cannot be written down");
        }
    }

    /// For the health topic, in whole percents so that it does not change with every packet; none without a limit.
    pub(super) fn told(&self) -> Option<Told> {
        let max = self.max?;
        let percent = u8::try_from((self.used * 100 / max.max(1)).min(100)).unwrap_or(100);
        let state = if !self.allows(Payer::Escalation) {
            BudgetState::Spent
        } else if !self.allows(Payer::Telemetry(0)) {
            BudgetState::Short
        } else {
            BudgetState::Ample
        };
        Some(Told { percent_used: percent, bytes_max: max, state })
    }
}

fn today(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / DAY_S)
}

fn parse(text: &str) -> Option<(u64, u64)> {
    let (day, used) = text.trim().split_once(' ')?;
    Some((day.parse().ok()?, used.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn used(max: u64, percent: u64) -> Budget {
        Budget { max: Some(max), file: PathBuf::new(), day: 1, used: max / 100 * percent, saved: None }
    }

    #[test]
    fn bulk_waits_first_and_escalations_last() {
        let who = [Payer::Telemetry(1), Payer::Telemetry(5), Payer::Telemetry(9), Payer::Escalation];
        for (percent, expect, state) in [
            (0, [true, true, true, true], BudgetState::Ample),
            (59, [true, true, true, true], BudgetState::Ample),
            (60, [false, true, true, true], BudgetState::Short),
            (80, [false, false, true, true], BudgetState::Short),
            (95, [false, false, false, true], BudgetState::Short),
            (100, [false, false, false, false], BudgetState::Spent),
        ] {
            let budget = used(10_000, percent);
            assert_eq!(who.map(|payer| budget.allows(payer)), expect, "{percent} %");
            let told = budget.told().unwrap();
            assert_eq!((u64::from(told.percent_used), told.state), (percent, state));
        }
    }

    #[test]
    fn a_new_day_is_a_new_budget_and_no_budget_is_no_limit() {
        let mut budget = used(10_000, 100);
        budget.turn(UNIX_EPOCH + Duration::from_secs(DAY_S + 5));
        assert!(!budget.allows(Payer::Escalation), "the same day");
        budget.turn(UNIX_EPOCH + Duration::from_secs(2 * DAY_S));
        assert!(budget.allows(Payer::Telemetry(0)));
        let mut none = Budget::open(None, PathBuf::new());
        none.pay(1 << 40);
        assert!(none.allows(Payer::Telemetry(0)) && none.told().is_none());
    }

    #[test]
    fn the_count_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bridge-bytes");
        let mut budget = Budget::open(Some(1_000_000), file.clone());
        budget.pay(1000);
        budget.save(Instant::now());
        assert_eq!(Budget::open(Some(1_000_000), file.clone()).used, 1000 + PACKET_BYTES);
        fs::write(&file, "torn").unwrap();
        assert_eq!(Budget::open(Some(1_000_000), file).used, 0);
    }
}
