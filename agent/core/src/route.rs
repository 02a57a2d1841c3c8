//! What becomes of a local attempt: kept, kept provisionally while the cloud is asked, handed to the cloud, or failed.
//! Invariant: nothing goes to the cloud unless [`Cloud`] says that it may.

use crate::confidence::Confidence;
use crate::interval::Interval;
use crate::site::Provisional;
use tidegate_schemas::Reason;

/// Least time left in which waiting for a link makes sense, in milliseconds: a reconnect with TLS over a slow link.
const LINK_WAIT_MS_MIN: u64 = 2_000;

/// What is thought of the cloud's time before the first resolution: a small model behind a mobile link.
const UNKNOWN: Interval = Interval { low_ms: 100.0, mid_ms: 500.0, high_ms: 3_000.0 };

/// What the cloud can do for a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cloud {
    /// The task or the prompt forbids it.
    LocalOnly,
    /// No bridge is configured.
    NoCloud,
    /// It is allowed, and there is no link now.
    LinkDown,
    /// It is allowed and can be reached.
    LinkUp {
        /// Time from publish to resolution, as recent ones took it; none before the first.
        reach: Option<Interval>,
    },
}

impl Cloud {
    /// Whether the cloud may see the prompt.
    #[must_use]
    pub fn allowed(self) -> bool {
        matches!(self, Self::LinkDown | Self::LinkUp { .. })
    }

    /// How long an answer of the cloud takes; none where it cannot be had now.
    #[must_use]
    pub fn reach(self) -> Option<Interval> {
        match self {
            Self::LinkUp { reach } => Some(reach.unwrap_or(UNKNOWN)),
            Self::LocalOnly | Self::NoCloud | Self::LinkDown => None,
        }
    }
}

/// What the engine made of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Local {
    /// A valid answer.
    Answer(Confidence),
    /// None, and why.
    Nothing(Reason),
}

/// What is thought of a local answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is sure enough.
    None,
    /// It is sure enough, and was drawn to be looked at by the cloud.
    Audit,
    /// It is not, and the cloud can be expected to do better.
    Worth,
    /// It is not, and the cloud does no better by all that is known.
    NotWorth,
    /// It is not, and what the cloud may mend is worth less than the price of asking.
    TooDear,
}

/// What the decision depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Whether the answer is sure enough, and if not, whether the cloud is worth asking.
    pub doubt: Doubt,
    /// What the device sees meanwhile; `Withhold` for bare text.
    pub provisional: Provisional,
    /// What the cloud can do.
    pub cloud: Cloud,
    /// Time to the deadline, in milliseconds.
    pub left_ms: Option<u64>,
}

/// The decision, with its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The local answer is final.
    Keep(Reason),
    /// The local answer is sent as provisional, and the cloud is asked.
    Provisional(Reason),
    /// The cloud is asked.
    Escalate(Reason),
    /// There is no local answer and no way to another.
    Fail(Reason),
}

/// Decides what becomes of a local attempt.
#[must_use]
pub fn route(local: Local, policy: Policy) -> Way {
    let ask = |reason: Reason| match policy.provisional {
        Provisional::Give => Way::Provisional(reason),
        Provisional::Withhold => Way::Escalate(reason),
    };
    match (local, blocked(policy)) {
        (Local::Answer(_), _) if policy.doubt == Doubt::None => Way::Keep(Reason::Confident),
        (Local::Answer(_), Some(_)) if policy.doubt == Doubt::Audit => Way::Keep(Reason::Confident),
        (Local::Answer(_), Some(obstacle)) => Way::Keep(obstacle),
        (Local::Answer(_), None) => match policy.doubt {
            Doubt::NotWorth => Way::Keep(Reason::CloudLessSure),
            Doubt::TooDear => Way::Keep(Reason::TooDear),
            Doubt::Audit => ask(Reason::Confident),
            Doubt::Worth | Doubt::None => ask(Reason::LowConfidence),
        },
        (Local::Nothing(reason), None) => Way::Escalate(reason),
        (Local::Nothing(reason), Some(_)) => Way::Fail(reason),
    }
}

/// What keeps a prompt from the cloud, if anything.
fn blocked(policy: Policy) -> Option<Reason> {
    match policy.cloud {
        Cloud::LocalOnly => Some(Reason::LocalOnly),
        Cloud::NoCloud => Some(Reason::NoCloud),
        Cloud::LinkDown if policy.left_ms.is_some_and(|ms| ms < LINK_WAIT_MS_MIN) => Some(Reason::LinkDown),
        Cloud::LinkDown | Cloud::LinkUp { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Cloud = Cloud::LinkUp { reach: Some(Interval { low_ms: 3_000.0, mid_ms: 3_000.0, high_ms: 3_000.0 }) };

    #[test]
    fn answers_are_kept_or_escalated_with_a_reason() {
        let check = |confidence: f64, cloud: Cloud, left_ms: Option<u64>, expect: Way| {
            let doubt = if confidence >= 0.8 { Doubt::None } else { Doubt::Worth };
            let policy = Policy { doubt, provisional: Provisional::Give, cloud, left_ms };
            let got = route(Local::Answer(Confidence::new(confidence)), policy);
            assert_eq!(got, expect, "{confidence} {cloud:?} {left_ms:?}");
        };
        check(0.9, UP, None, Way::Keep(Reason::Confident));
        check(0.8, Cloud::LocalOnly, None, Way::Keep(Reason::Confident));
        check(0.79, UP, None, Way::Provisional(Reason::LowConfidence));
        check(0.79, UP, Some(100), Way::Provisional(Reason::LowConfidence));
        check(f64::NAN, UP, None, Way::Provisional(Reason::LowConfidence));
        check(0.1, Cloud::LocalOnly, None, Way::Keep(Reason::LocalOnly));
        check(0.1, Cloud::NoCloud, None, Way::Keep(Reason::NoCloud));
        check(0.1, Cloud::LinkDown, None, Way::Provisional(Reason::LowConfidence));
        check(0.1, Cloud::LinkDown, Some(60_000), Way::Provisional(Reason::LowConfidence));
        check(0.1, Cloud::LinkDown, Some(1_000), Way::Keep(Reason::LinkDown));
    }

    #[test]
    fn what_is_not_worth_a_hop_is_kept_and_an_audit_never_lies_in_wait_for_a_link() {
        let check = |doubt: Doubt, cloud: Cloud, left_ms: Option<u64>, expect: Way| {
            let policy = Policy { doubt, provisional: Provisional::Withhold, cloud, left_ms };
            assert_eq!(route(Local::Answer(Confidence::new(0.5)), policy), expect, "{doubt:?} {cloud:?}");
        };
        check(Doubt::NotWorth, UP, None, Way::Keep(Reason::CloudLessSure));
        check(Doubt::NotWorth, Cloud::LocalOnly, None, Way::Keep(Reason::LocalOnly));
        check(Doubt::TooDear, UP, None, Way::Keep(Reason::TooDear));
        check(Doubt::Audit, UP, None, Way::Escalate(Reason::Confident));
        check(Doubt::Audit, Cloud::LocalOnly, None, Way::Keep(Reason::Confident));
        check(Doubt::Audit, Cloud::NoCloud, None, Way::Keep(Reason::Confident));
    }

    #[test]
    fn nothing_is_escalated_or_fails() {
        let check = |cloud: Cloud, left_ms: Option<u64>, expect: Way| {
            let policy = Policy { doubt: Doubt::Worth, provisional: Provisional::Give, cloud, left_ms };
            assert_eq!(route(Local::Nothing(Reason::NoValidEnding), policy), expect, "{cloud:?} {left_ms:?}");
        };
        check(UP, None, Way::Escalate(Reason::NoValidEnding));
        check(Cloud::LinkDown, None, Way::Escalate(Reason::NoValidEnding));
        check(Cloud::LinkDown, Some(10), Way::Fail(Reason::NoValidEnding));
        check(Cloud::LocalOnly, None, Way::Fail(Reason::NoValidEnding));
        check(Cloud::NoCloud, None, Way::Fail(Reason::NoValidEnding));
    }

    #[test]
    fn a_withheld_answer_is_not_given() {
        let policy = Policy { doubt: Doubt::Worth, provisional: Provisional::Withhold, cloud: UP, left_ms: None };
        assert_eq!(route(Local::Answer(Confidence::new(0.2)), policy), Way::Escalate(Reason::LowConfidence));
    }

    #[test]
    fn the_cloud_is_in_reach_only_when_it_may_be_asked_and_the_link_is_up() {
        assert_eq!(UP.reach(), Some(Interval::exactly(3_000.0)));
        assert_eq!(Cloud::LinkUp { reach: None }.reach(), Some(UNKNOWN));
        for cloud in [Cloud::LinkDown, Cloud::LocalOnly, Cloud::NoCloud] {
            assert_eq!(cloud.reach(), None);
        }
    }
}
