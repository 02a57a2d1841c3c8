//! What a reader has lost: rumqttd's log of a filter is bounded, and whoever falls behind it goes on where it begins,
//! without a word. Each message comes with its place in the log of its filter, though, and places have no gaps.

/// Where a reader stands in the logs of its filters. A message does not say which filter it is of, so a gap is that of
/// the filter which stands nearest; what is lost of several at once is still counted once.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    next: Vec<u64>,
}

impl Offsets {
    /// A message at this place, to a reader of so many `filters`. How many before it were lost, at least.
    pub(super) fn pass(&mut self, at: u64, filters: usize) -> u64 {
        if let Some(next) = self.next.iter_mut().find(|next| **next == at) {
            *next += 1;
            return 0;
        }
        if self.next.len() < filters {
            self.next.push(at + 1);
            return 0;
        }
        let Some(next) = self.next.iter_mut().filter(|next| **next < at).max() else { return 0 };
        at + 1 - std::mem::replace(next, at + 1) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filters: usize, places: &[u64], expect: u64) {
        let mut offsets = Offsets::default();
        assert_eq!(places.iter().map(|at| offsets.pass(*at, filters)).sum::<u64>(), expect, "{places:?}");
    }

    #[test]
    fn gaps_are_counted_and_nothing_else_is() {
        check(1, &[7, 8, 9, 10], 0);
        check(1, &[7, 8, 20, 21], 11);
        check(1, &[0, 100, 200], 198);
        check(2, &[7, 500, 8, 501, 9], 0);
        check(2, &[7, 500, 18, 501, 19], 10);
        check(2, &[7, 500, 510, 501, 511], 502);
        // A gap of the first is taken for one of the second, which goes on where the first was.
        check(2, &[99, 499, 510, 500, 511], 409 + 1);
    }
}
