//! Which answers of a task are kept: one of three ways to say it, and whether the cloud's answers may correct it. Wishes
//! that contradict each other are mistakes, not priorities.

use super::reader::Section;
use tidegate_core::{Consent, Keep, Learning};

/// Confidence from which an answer is kept: four in five right.
const THRESHOLD_DEFAULT: f64 = 0.8;
/// Probability with which a promise holds when nobody says it.
const SURE_DEFAULT: f64 = 0.95;
/// Worth of a right answer when nobody says it: all tasks alike.
const VALUE_DEFAULT: f64 = 1.0;
/// Share of the kept answers that the cloud looks at: one in a hundred costs little and shows a drift within days.
const AUDIT_DEFAULT: f64 = 0.01;

/// Reads a task's wishes.
pub(super) fn keep(section: &Section<'_>, consent: Consent) -> Keep {
    let why = "At most this share of the kept answers is wrong; instead of threshold. Needs a calibration with labels.";
    let level = section.share_if("wrong_at_most", why);
    let sure = section.share_if("sure", "Probability with which wrong_at_most holds; 0.95 where nothing is said.");
    let why = "This share of the answers is escalated, the least sure ones; instead of threshold.";
    let share = section.share_if("escalate_share", why);
    let threshold = section.share(
        "threshold",
        THRESHOLD_DEFAULT,
        "Confidence from which a local answer is kept: at 0.8 four in five are right where it is calibrated.",
    );
    let wishes: Vec<&str> =
        ["threshold", "wrong_at_most", "escalate_share"].into_iter().filter(|key| section.has(key)).collect();
    if let [first, .., last] = wishes[..] {
        section.refuse(last, &format!("contradicts {first}: one of threshold, wrong_at_most and escalate_share"));
    }
    if sure.is_some() && level.is_none() {
        section.refuse("sure", &"belongs to wrong_at_most, which is not there");
    }
    check_ends(section, level, sure);
    let never = consent == Consent::Never && (level.is_some() || share.is_some_and(|s| s > 0.0));
    if never && let Some(wish) = wishes.iter().find(|wish| **wish != "threshold") {
        section.refuse(wish, &"contradicts cloud = \"never\": what is not kept has nowhere to go");
    }
    match (level, share) {
        (Some(level), _) => Keep::WrongAtMost { level, sure: sure.unwrap_or(SURE_DEFAULT) },
        (None, Some(share)) => Keep::EscalateShare(share),
        (None, None) => Keep::Threshold(threshold),
    }
}

/// Neither no error at all nor certainty can be promised.
fn check_ends(section: &Section<'_>, level: Option<f64>, sure: Option<f64>) {
    for (key, value) in [("wrong_at_most", level), ("sure", sure)] {
        if let Some(value) = value.filter(|value| *value <= 0.0 || *value >= 1.0) {
            section.wrong(key, &value, &"more than 0.0 and less than 1.0");
        }
    }
}

/// What a right answer is worth.
pub(super) fn value(section: &Section<'_>) -> f64 {
    let why = "What a right answer is worth beside other tasks: weighed against the price of escalating, where there is a budget.";
    section.share("value", VALUE_DEFAULT, why)
}

/// Whether the cloud's answers correct the confidence.
pub(super) fn learning(section: &Section<'_>) -> Learning {
    let why = "Whether the cloud's answers correct the confidence while the gateway runs.";
    let on = section.choice("learning", &[("true", true), ("false", false)], Some(0), why).unwrap_or(true);
    let why = "Most of the kept answers, as a share, that go to the cloud as well to be looked at, the less sure ones oftener; 0.0 for none.";
    let audit_share = section.share("audit_share", AUDIT_DEFAULT, why);
    if !on && section.has("audit_share") && audit_share > 0.0 {
        section.refuse("audit_share", &"contradicts learning = false: nobody learns from an audit");
    }
    if on { Learning::On { audit_share } } else { Learning::Off }
}

#[cfg(test)]
mod tests {
    use super::super::check::read;
    use std::path::Path;

    fn mistakes(task: &str) -> Vec<String> {
        let text = format!(
            "[bridge]\nurl = \"mqtt://127.0.0.1:1883\"\n[tasks.intent]\ncloud = \"allowed\"\n[tasks.action]\n{task}\n"
        );
        let table = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        read(table, Path::new(".")).1
    }

    #[test]
    fn contradictory_wishes_are_named() {
        let check = |task: &str, expect: &str| {
            let found = mistakes(task);
            assert!(found.iter().any(|mistake| mistake.contains(expect)), "{task}: {found:?}");
        };
        let allowed = |wish: &str| format!("cloud = \"allowed\"\n{wish}");
        check(&allowed("threshold = 0.7\nwrong_at_most = 0.05"), "wrong_at_most: contradicts threshold");
        check(&allowed("escalate_share = 0.2\nwrong_at_most = 0.05"), "escalate_share: contradicts wrong_at_most");
        check(&allowed("sure = 0.9"), "sure: belongs to wrong_at_most");
        check(&allowed("wrong_at_most = 0.0"), "wrong_at_most = 0: allowed is more than 0.0");
        check(&allowed("wrong_at_most = 1.5"), "wrong_at_most = 1.5: allowed is 0.0 to 1.0");
        check(&allowed("wrong_at_most = 0.1\nsure = 1.0"), "sure = 1: allowed is more than 0.0");
        check(&allowed("learning = false\naudit_share = 0.1"), "audit_share: contradicts learning = false");
        check("cloud = \"never\"\nwrong_at_most = 0.05", "wrong_at_most: contradicts cloud");
        check("cloud = \"never\"\nescalate_share = 0.2", "escalate_share: contradicts cloud");
    }

    #[test]
    fn each_wish_alone_is_fine() {
        for wish in ["threshold = 0.7", "wrong_at_most = 0.05\nsure = 0.9", "escalate_share = 0.2", "learning = false"]
        {
            assert_eq!(mistakes(&format!("cloud = \"allowed\"\n{wish}")), Vec::<String>::new(), "{wish}");
        }
    }
}
