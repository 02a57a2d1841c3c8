//! Admission by predicted wait, with the predictor and with constants in its place: the table below passes with the
//! one and fails with every other.
#![allow(missing_docs, clippy::unwrap_used)]

use tidegate_core::Limits;
use tidegate_core::admit::{Admission, Asked, Occupied, admit};
use tidegate_core::interval::Interval;
use tidegate_core::predict::{Measured, Predictor, Work};
use tidegate_core::route::Cloud;
use tidegate_schemas::{Reason, TaskName};

/// Every prompt below has as long as this, in milliseconds.
const DEADLINE_MS: u64 = 1_000;
/// Prompts ahead, how many times slower the engine has become, and whether the prompt then runs here.
const TABLE: [(usize, u64, bool); 6] =
    [(0, 1, true), (2, 1, true), (3, 1, false), (9, 1, false), (0, 3, true), (1, 3, false)];

fn task() -> TaskName {
    "intent".parse().unwrap()
}

/// Reads 100 bytes in 100 ms and writes 20 tokens in 200 ms, times `slowness`.
fn measured(slowness: u64) -> Predictor {
    let mut predictor = Predictor::new([(task(), 20)]);
    let seen = Measured { bytes: 100, tokens: 20, prefill_ms: 100 * slowness, decode_ms: 200 * slowness };
    predictor.measure(&task(), seen);
    predictor
}

/// Predicted wait and own time with so many prompts ahead, the first of them just begun.
fn predicted(ahead: usize, slowness: u64) -> (u64, u64) {
    let predictor = measured(slowness);
    let work = predictor.work(&task(), 100, 64);
    let own_ms = predictor.own_ms(work);
    let running = vec![own_ms; ahead.min(1)];
    let queued = (1..ahead).fold(Work::default(), |sum, _| sum + work);
    (predictor.wait_ms(queued, &running, 1), own_ms)
}

fn runs_here((wait_ms, own_ms): (u64, u64)) -> bool {
    let here = Interval::exactly((wait_ms + own_ms) as f64);
    let asked = Asked { bytes: 100, deadline_ms: Some(DEADLINE_MS), wait_ms, here, strain: None };
    match admit(asked, Occupied::default(), &Limits::default(), Cloud::LinkUp { reach: None }) {
        Admission::RunHere => true,
        Admission::EscalateNow(reason) => {
            assert_eq!(reason, Reason::TooSlow);
            false
        }
        Admission::Refuse(refusal) => panic!("refused: {}", refusal.message),
    }
}

#[test]
fn what_would_be_late_here_goes_to_the_cloud() {
    for (ahead, slowness, here) in TABLE {
        let predicted = predicted(ahead, slowness);
        assert_eq!(runs_here(predicted), here, "{ahead} ahead, {slowness} times slower: {predicted:?} ms");
    }
}

#[test]
fn no_constant_in_place_of_the_predictor_passes_the_table() {
    for constant in (0..=2 * DEADLINE_MS).chain([u64::MAX]) {
        let fails = TABLE.iter().any(|(_, _, here)| runs_here((constant, 0)) != *here);
        assert!(fails, "a wait of always {constant} ms passes");
        let fails = TABLE.iter().any(|(_, slowness, here)| runs_here((constant, 300 * slowness)) != *here);
        assert!(fails, "a wait of always {constant} ms passes beside the true time in the slot");
    }
}
