//! Which numbers are gone since the generation began.
//!
//! A log-structured file holds what was removed until its place is used again, and the removal stands nowhere that a
//! scan finds. So each removal of what nothing else ends (an outcome that is forgotten, a forwarded message, a letter)
//! is written down in the same atomic step, as one bit: a salvage honours it. What lies below the horizon needs no bit,
//! and a new generation begins with none: nothing was removed from it yet.

use crate::envelope::{Class, Key};
use crate::staged::Horizon;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_schemas::JobId;

/// Bytes of a chunk: small beside the records of the group that it is written with.
const CHUNK_BYTES: usize = 64;
/// Numbers of a chunk.
const CHUNK: u64 = 8 * CHUNK_BYTES as u64;
/// Where the series stands in the number of a chunk: no series has so many numbers.
const SERIES_SHIFT: u32 = 60;

/// The numbers that are gone, a bit for each. Bounded by what one generation can hold: it ends when its file has worn
/// out.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    chunks: BTreeMap<u64, [u8; CHUNK_BYTES]>,
    /// Chunks that changed since they were written.
    touched: BTreeSet<u64>,
    /// Those among them that say less than they did.
    lessened: BTreeSet<u64>,
}

impl Gone {
    /// What stands under this key was removed.
    pub(crate) fn add(&mut self, key: Key) {
        if let Some((chunk, byte, bit)) = place(key) {
            self.chunks.entry(chunk).or_insert([0; CHUNK_BYTES])[byte] |= bit;
            self.touched.insert(chunk);
        }
    }

    /// Something new stands under this number; says whether something was gone there.
    pub(crate) fn take_back(&mut self, key: Key) -> bool {
        let Some((chunk, byte, bit)) = place(key) else { return false };
        let Some(bits) = self.chunks.get_mut(&chunk).filter(|bits| bits[byte] & bit != 0) else { return false };
        bits[byte] &= !bit;
        self.lessened.insert(chunk);
        self.touched.insert(chunk);
        true
    }

    /// Whether what stands under this key was removed.
    pub(crate) fn has(&self, key: Key) -> bool {
        place(key).is_some_and(|(chunk, byte, bit)| self.chunks.get(&chunk).is_some_and(|bits| bits[byte] & bit != 0))
    }

    /// Takes a chunk as it was written; one of another size is none.
    pub(crate) fn read(&mut self, key: Key, body: &[u8]) -> Option<()> {
        self.chunks.insert(key.job.0, body.try_into().ok()?);
        Some(())
    }

    /// What is to be written so that a salvage knows what changed: a chunk, or none where the horizon says it all.
    pub(crate) fn changes(&mut self, horizon: &Horizon) -> Vec<(Key, Option<[u8; CHUNK_BYTES]>)> {
        let key = |chunk: u64| Key::new(Class::Gone, JobId(chunk));
        let over: Vec<u64> = SERIES.into_iter().flat_map(|class| self.below(class, horizon)).collect();
        let (touched, lessened) = (std::mem::take(&mut self.touched), std::mem::take(&mut self.lessened));
        let mut changes: Vec<_> = over.iter().map(|chunk| (key(*chunk), None)).collect();
        for chunk in &over {
            self.chunks.remove(chunk);
        }
        for chunk in touched {
            let Some(bits) = self.chunks.get(&chunk) else { continue };
            if lessened.contains(&chunk) || says_more(chunk, bits, horizon) {
                changes.push((key(chunk), Some(*bits)));
            }
        }
        changes
    }

    /// Chunks of the series of this class that lie below the horizon as a whole.
    fn below(&self, class: Class, horizon: &Horizon) -> Vec<u64> {
        let first = series(class).unwrap_or(0) << SERIES_SHIFT;
        let end = first + horizon.floor_of(class) / CHUNK;
        self.chunks.range(first..end).map(|(chunk, _)| *chunk).collect()
    }
}

/// One class of each series.
const SERIES: [Class; 3] = [Class::Outcome, Class::Forward, Class::Dead];

/// Classes whose records go together share a series.
fn series(class: Class) -> Option<u64> {
    match class {
        Class::Attempts | Class::Released | Class::Escalation | Class::Prompt | Class::Outcome => Some(0),
        Class::Forward => Some(1),
        Class::Dead => Some(2),
        Class::Horizon | Class::Gone => None,
    }
}

/// Chunk, byte and bit of a number.
fn place(key: Key) -> Option<(u64, usize, u8)> {
    let (chunk, at) = (key.job.0 / CHUNK, key.job.0 % CHUNK);
    let byte = usize::try_from(at / 8).ok()?;
    Some(((series(key.class)? << SERIES_SHIFT) | chunk, byte, 1 << (at % 8)))
}

/// Whether a chunk has a bit that the horizon does not cover.
fn says_more(chunk: u64, bits: &[u8; CHUNK_BYTES], horizon: &Horizon) -> bool {
    let class = SERIES[usize::try_from(chunk >> SERIES_SHIFT).unwrap_or(0).min(SERIES.len() - 1)];
    let first = (chunk & ((1 << SERIES_SHIFT) - 1)) * CHUNK;
    let covered = horizon.floor_of(class).saturating_sub(first).min(CHUNK);
    let last = bits.iter().rposition(|byte| *byte != 0);
    last.is_some_and(|byte| 8 * byte as u64 + u64::from(bits[byte].ilog2()) >= covered)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(class: Class, number: u64) -> Key {
        Key::new(class, JobId(number))
    }

    /// What a salvage would know: the chunks that were written, and the horizon.
    #[derive(Default)]
    struct Written(BTreeMap<u64, Vec<u8>>);

    impl Written {
        fn take(&mut self, changes: Vec<(Key, Option<[u8; CHUNK_BYTES]>)>) {
            for (key, bits) in changes {
                match bits {
                    Some(bits) => drop(self.0.insert(key.job.0, bits.to_vec())),
                    None => drop(self.0.remove(&key.job.0)),
                }
            }
        }

        fn read(&self) -> Gone {
            let mut gone = Gone::default();
            self.0.iter().for_each(|(chunk, bits)| gone.read(key(Class::Gone, *chunk), bits).unwrap());
            gone
        }
    }

    #[test]
    fn in_order_nothing_is_written_but_the_horizon() {
        let mut gone = Gone::default();
        for number in 1..2_000 {
            gone.add(key(Class::Forward, number));
            let horizon = Horizon { forward_floor: number + 1, ..Horizon::START };
            let written = gone.changes(&horizon).into_iter().filter(|(_, bits)| bits.is_some()).count();
            assert_eq!(written, 0, "after {number}");
        }
        assert!(gone.chunks.len() <= 1, "{} chunks", gone.chunks.len());
    }

    #[test]
    fn a_chunk_of_another_size_is_none() {
        assert_eq!(Gone::default().read(key(Class::Gone, 0), &[0; 63]), None);
    }

    proptest! {
        /// Whatever goes in whatever order, what was written and the horizon tell of each number whether it is there.
        #[test]
        fn what_was_written_tells_what_is_gone(
            steps in proptest::collection::vec((0..3_usize, 1..1_500_u64, any::<bool>()), 1..300)
        ) {
            let mut gone = Gone::default();
            let mut written = Written::default();
            let mut there = [(); 3].map(|()| (1..1_500_u64).collect::<BTreeSet<u64>>());
            let mut horizon = Horizon::START;
            for (series, number, again) in steps {
                if !there[series].remove(&number) && again {
                    // As the store does it: what lies between the number and the old floor is gone by itself.
                    let floor = horizon.floor_of(SERIES[series]);
                    (number + 1..floor).for_each(|below| gone.add(key(SERIES[series], below)));
                    gone.take_back(key(SERIES[series], number));
                    there[series].insert(number);
                } else {
                    gone.add(key(SERIES[series], number));
                }
                let floor = |at: usize| there[at].first().copied().unwrap_or(1_500);
                horizon = Horizon { floor: floor(0), forward_floor: floor(1), dead_floor: floor(2), ..horizon };
                written.take(gone.changes(&horizon));
            }
            let read = written.read();
            for (series, there) in there.iter().enumerate() {
                for number in 1..1_500 {
                    let key = key(SERIES[series], number);
                    prop_assert_eq!(!read.has(key) && !horizon.is_over(key), there.contains(&number), "{:?}", key);
                }
            }
        }
    }
}
