//! Text of a wanted length: random models do not care what it says, and their vocabularies have no real words.

/// Words as commands to devices have them.
const WORDS: [&str; 16] = [
    "turn", "the", "light", "in", "hall", "on", "and", "set", "room", "to", "open", "gate", "dim", "lamp", "at",
    "north",
];

/// So many words, others for another seed.
pub(crate) fn words(count: usize, seed: usize) -> String {
    let word = |n: usize| WORDS[(n.wrapping_mul(7) + seed.wrapping_mul(5) + n / 16 + seed / 16 * n) % WORDS.len()];
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// Finds how many words make about so many tokens, by what one try of so many words made.
pub(crate) fn count_for(tokens: usize, tried: usize, made: usize) -> usize {
    (tokens * tried).div_ceil(made.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_differ_by_seed() {
        assert_eq!(words(40, 3).split(' ').count(), 40);
        assert_ne!(words(40, 3), words(40, 4));
        assert_eq!(words(40, 3), words(40, 3));
        assert_eq!(count_for(256, 100, 200), 128);
        assert_eq!(count_for(1, 1, 0), 1);
    }
}
