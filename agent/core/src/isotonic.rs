//! Isotonic regression by pooling adjacent violators: the non-decreasing step function nearest to the labels, as knots
//! for linear interpolation. Invariant: knots grow in the first coordinate and never fall in the second.

/// Most knots that are kept: more than a few thousand labels can tell apart.
pub const KNOTS_MAX: usize = 64;
/// How far verdicts are drawn towards the middle, in answers per block: no block claims certainty from few labels
/// (Laplace's rule with half an answer of each outcome, split over the whole curve).
const PRIOR: f64 = 0.5;

#[derive(Clone, Copy)]
struct Block {
    x: f64,
    right: f64,
    weight: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.right / self.weight
    }

    fn join(&mut self, other: &Self) {
        let weight = self.weight + other.weight;
        self.x = (self.x * self.weight + other.x * other.weight) / weight;
        self.right += other.right;
        self.weight = weight;
    }
}

/// Knots (score, share of right answers) from (score, right, weight). Rows with a score that is not finite, or without
/// a positive weight, are left out.
#[must_use]
pub fn isotonic(rows: &[(f64, bool, f64)]) -> Vec<(f64, f64)> {
    let usable = |row: &&(f64, bool, f64)| row.0.is_finite() && row.2.is_finite() && row.2 > 0.0;
    let mut sorted: Vec<(f64, bool, f64)> = rows.iter().filter(usable).copied().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut blocks: Vec<Block> = Vec::new();
    for (x, right, weight) in sorted {
        let mut block = Block { x, right: weight * f64::from(u8::from(right)), weight };
        // Equal scores are one block whatever their labels; a falling mean joins as well.
        while let Some(last) = blocks.last().filter(|last| last.x >= block.x || last.mean() >= block.mean()) {
            let mut joined = *last;
            joined.join(&block);
            block = joined;
            blocks.pop();
        }
        blocks.push(block);
    }
    knots(&thinned(blocks))
}

/// At most [`KNOTS_MAX`] blocks: neighbours whose means are nearest are joined first.
fn thinned(mut blocks: Vec<Block>) -> Vec<Block> {
    while blocks.len() > KNOTS_MAX {
        let rise = |i: &usize| blocks[i + 1].mean() - blocks[*i].mean();
        let Some(at) = (0..blocks.len() - 1).min_by(|a, b| rise(a).total_cmp(&rise(b))) else { break };
        let next = blocks.remove(at + 1);
        blocks[at].join(&next);
    }
    blocks
}

fn knots(blocks: &[Block]) -> Vec<(f64, f64)> {
    let mut floor = 0.0_f64;
    let smooth = |block: &Block| (block.right + PRIOR / 2.0) / (block.weight + PRIOR);
    let knot = |block: &Block| {
        floor = floor.max(smooth(block)).min(1.0);
        (block.x, floor)
    };
    blocks.iter().map(knot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn falling_shares_are_pooled() {
        let rows = [(0.1, false, 100.0), (0.2, true, 100.0), (0.3, false, 100.0), (0.4, true, 100.0)];
        let shares: Vec<i64> = isotonic(&rows).iter().map(|k| (k.1 * 10.0).round() as i64).collect();
        assert_eq!(shares, [0, 5, 10]);
    }

    #[test]
    fn few_labels_claim_no_certainty() {
        let knots = isotonic(&[(0.9, true, 1.0)]);
        assert_eq!(knots.len(), 1);
        assert!(knots[0].1 < 0.9, "{knots:?}");
        assert!(isotonic(&[]).is_empty());
        assert!(isotonic(&[(f64::NAN, true, 1.0), (0.5, true, 0.0)]).is_empty());
    }

    proptest! {
        #[test]
        fn knots_grow_and_never_fall(rows in prop::collection::vec((0.0..1.0_f64, any::<bool>(), 0.1..3.0_f64), 1..400)) {
            let knots = isotonic(&rows);
            prop_assert!(!knots.is_empty() && knots.len() <= KNOTS_MAX);
            for pair in knots.windows(2) {
                prop_assert!(pair[1].0 > pair[0].0, "{pair:?}");
                prop_assert!(pair[1].1 >= pair[0].1, "{pair:?}");
            }
            prop_assert!(knots.iter().all(|(_, y)| (0.0..=1.0).contains(y)));
        }

        #[test]
        fn shares_agree_with_the_labels_on_the_whole(rows in prop::collection::vec((0.0..1.0_f64, any::<bool>()), 200..400)) {
            let weighted: Vec<_> = rows.iter().map(|(x, right)| (*x, *right, 1.0)).collect();
            let knots = isotonic(&weighted);
            let share = rows.iter().filter(|(_, right)| *right).count() as f64 / rows.len() as f64;
            let (low, high) = (knots[0].1, knots[knots.len() - 1].1);
            prop_assert!(low <= share + 0.01 && high >= share - 0.01, "{low} {share} {high}");
        }
    }
}
