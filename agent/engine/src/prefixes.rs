//! Which prefixes stay computed, each in a sequence of its own.
//!
//! Invariants: a sequence belongs to one prefix at most; all kept prefixes together have no more tokens than the budget,
//! so that the cells set aside for them suffice; the least recently used goes first.

use llama_cpp_2::token::LlamaToken;

/// The prefixes that stand in the cache.
pub(crate) struct Prefixes {
    /// Least recently used first.
    kept: Vec<Kept>,
    free: Vec<i32>,
    budget: usize,
}

struct Kept {
    tokens: Vec<LlamaToken>,
    sequence: i32,
}

/// Where a new prefix goes, and what has to be cleared before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) sequence: i32,
    pub(crate) clear: Vec<i32>,
}

impl Prefixes {
    /// Room for as many prefixes as there are sequences, and for `budget` tokens.
    pub(crate) fn new(sequences: std::ops::Range<i32>, budget: usize) -> Self {
        Self { kept: Vec::new(), free: sequences.collect(), budget }
    }

    /// The sequence that holds exactly these tokens.
    pub(crate) fn find(&mut self, tokens: &[LlamaToken]) -> Option<i32> {
        let at = self.kept.iter().position(|kept| kept.tokens == tokens)?;
        let kept = self.kept.remove(at);
        let sequence = kept.sequence;
        self.kept.push(kept);
        Some(sequence)
    }

    /// A place for these tokens; none when they stand already, or never fit.
    pub(crate) fn place(&mut self, tokens: &[LlamaToken]) -> Option<Place> {
        if tokens.is_empty() || tokens.len() > self.budget || self.find(tokens).is_some() {
            return None;
        }
        let mut clear = Vec::new();
        while self.free.is_empty() || self.held() + tokens.len() > self.budget {
            if self.kept.is_empty() {
                return None;
            }
            let evicted = self.kept.remove(0);
            clear.push(evicted.sequence);
            self.free.push(evicted.sequence);
        }
        let sequence = self.free.pop()?;
        self.kept.push(Kept { tokens: tokens.to_vec(), sequence });
        Some(Place { sequence, clear })
    }

    /// Forgets all, because the cache was cleared.
    pub(crate) fn forget(&mut self) {
        self.free.extend(self.kept.drain(..).map(|kept| kept.sequence));
    }

    fn held(&self) -> usize {
        self.kept.iter().map(|kept| kept.tokens.len()).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(of: i32, len: usize) -> Vec<LlamaToken> {
        vec![LlamaToken(of); len]
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut prefixes = Prefixes::new(4..6, 100);
        let first = prefixes.place(&tokens(1, 5)).unwrap().sequence;
        let second = prefixes.place(&tokens(2, 5)).unwrap().sequence;
        assert_eq!(prefixes.find(&tokens(1, 5)), Some(first));
        assert_eq!(prefixes.place(&tokens(3, 5)), Some(Place { sequence: second, clear: vec![second] }));
        assert_eq!(prefixes.find(&tokens(2, 5)), None);
        assert_eq!(prefixes.place(&tokens(1, 5)), None);
        assert_eq!(prefixes.place(&tokens(4, 101)), None);
        assert_eq!(Prefixes::new(4..4, 100).place(&tokens(1, 1)), None);
    }

    proptest! {
        #[test]
        fn budget_and_sequences_hold(asked in prop::collection::vec((0_i32..12, 1_usize..40), 1..80)) {
            let mut prefixes = Prefixes::new(10..14, 64);
            for (of, len) in asked {
                let place = prefixes.place(&tokens(of, len));
                prop_assert!(place.is_none_or(|p| (10..14).contains(&p.sequence)));
                prop_assert!(prefixes.find(&tokens(of, len)).is_some());
                prop_assert!(prefixes.held() <= 64 && prefixes.kept.len() + prefixes.free.len() == 4);
            }
        }
    }
}
