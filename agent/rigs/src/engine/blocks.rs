//! Blocks of quantised numbers, filled with random bits around a scale that keeps every value finite and small: a scale
//! of random bits would be no number once in 32 times. Layouts are those of `ggml-common.h`.

/// A GGML type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Q4_0,
    Q5_0,
    Q8_0,
    Q4K,
    Q6K,
}

/// Half-precision numbers of 2^-14 to 2^-8: exponent bits of the scale, to which ten random bits are added, so that
/// values spread over some hundredths as trained weights do.
const SCALE_Q4_0: u16 = 7 << 10;
const SCALE_Q5_0: u16 = 6 << 10;
const SCALE_Q8_0: u16 = 3 << 10;
const SCALE_Q4_K: u16 = 2 << 10;
const MIN_Q4_K: u16 = 5 << 10;
const SCALE_Q6_K: u16 = 1 << 10;
const MANTISSA: u16 = (1 << 10) - 1;

impl Kind {
    /// As `ggml.h` numbers it.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Q4_0 => 2,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Numbers and bytes of a block.
    pub(crate) fn block(self) -> (u64, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::Q4_0 => (32, 18),
            Self::Q5_0 => (32, 22),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// Makes a block of random bytes a block of this type.
    pub(crate) fn tame(self, block: &mut [u8]) {
        match self {
            Self::F32 => {
                // ±(2^-6 to 2^-5).
                let bits = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
                block.copy_from_slice(&((bits & 0x807f_ffff) | (121 << 23)).to_le_bytes());
            }
            Self::Q4_0 => scale(block, 0, SCALE_Q4_0),
            Self::Q5_0 => scale(block, 0, SCALE_Q5_0),
            Self::Q8_0 => scale(block, 0, SCALE_Q8_0),
            Self::Q4K => {
                scale(block, 0, SCALE_Q4_K);
                scale(block, 2, MIN_Q4_K);
            }
            Self::Q6K => {
                // Sixteen signed scales of 16 to 31, then the scale of scales.
                block[192..208].iter_mut().for_each(|scale| *scale = 16 + (*scale & 15));
                scale(block, 208, SCALE_Q6_K);
            }
        }
    }
}

fn scale(block: &mut [u8], at: usize, exponent: u16) {
    let random = u16::from_le_bytes([block[at], block[at + 1]]);
    block[at..at + 2].copy_from_slice(&(exponent | (random & MANTISSA)).to_le_bytes());
}

/// Random bytes that nobody needs to believe in (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let len = chunk.len();
            chunk.copy_from_slice(&self.next().to_le_bytes()[..len]);
        }
    }

    /// A number under `end`, which is not zero; small ones come more often.
    pub(crate) fn below_small_first(&mut self, end: usize) -> usize {
        let uniform = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let skewed = uniform(self.next()) * uniform(self.next());
        ((skewed * end as f64) as usize).min(end - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(block: &[u8], at: usize) -> f64 {
        let bits = u16::from_le_bytes([block[at], block[at + 1]]);
        let exponent = i32::from(bits >> 10 & 31);
        assert!((1..31).contains(&exponent), "{bits:04x} is subnormal or no number");
        assert_eq!(bits >> 15, 0, "{bits:04x} is negative");
        (1.0 + f64::from(bits & MANTISSA) / 1024.0) * 2.0_f64.powi(exponent - 15)
    }

    /// The largest weight of a block, by the formulas of `ggml-quants.c`.
    fn largest(kind: Kind, block: &[u8]) -> f64 {
        match kind {
            Kind::F32 => f64::from(f32::from_le_bytes([block[0], block[1], block[2], block[3]])).abs(),
            Kind::Q4_0 => 8.0 * half(block, 0),
            Kind::Q5_0 => 16.0 * half(block, 0),
            Kind::Q8_0 => 128.0 * half(block, 0),
            Kind::Q4K => (63.0 * 15.0 * half(block, 0)).max(63.0 * half(block, 2)),
            Kind::Q6K => {
                assert!(block[192..208].iter().all(|scale| (16..32).contains(scale)));
                31.0 * 32.0 * half(block, 208)
            }
        }
    }

    #[test]
    fn every_block_has_finite_small_values() {
        let mut random = Random::new(1);
        for kind in [Kind::F32, Kind::Q4_0, Kind::Q5_0, Kind::Q8_0, Kind::Q4K, Kind::Q6K] {
            for _ in 0..2_000 {
                let mut block = vec![0; kind.block().1];
                random.fill(&mut block);
                kind.tame(&mut block);
                let largest = largest(kind, &block);
                assert!((0.01..0.25).contains(&largest), "{kind:?}: {largest}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_small_numbers_come_first() {
        let bytes = |seed| {
            let mut bytes = [0; 21];
            Random::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(bytes(3), bytes(3));
        assert_ne!(bytes(3), bytes(4));
        let mut random = Random::new(9);
        let low = (0..1_000).filter(|_| random.below_small_first(100) < 50).count();
        assert!((750..950).contains(&low), "{low}");
    }
}
