//! What `broker/fuzz` drives. Not a part of the door's interface.

use crate::codec::{Version, decode, encode};
use bytes::BytesMut;

/// Far above every limit of the door, so that lengths are tried, too.
const BYTES_MAX: usize = 1024 * 1024;

/// Decodes bytes in both versions, as far as they go, and holds that what was taken survives a round.
///
/// # Panics
/// When the codec breaks that: this is what a fuzzer looks for.
pub fn codec(bytes: &[u8]) {
    for version in [Version::V4, Version::V5] {
        let mut rest = BytesMut::from(bytes);
        while let Ok(Some(packet)) = decode(&mut rest, version, BYTES_MAX) {
            let mut encoded = BytesMut::new();
            encode(&packet, version, &mut encoded);
            let again = decode(&mut encoded, version, BYTES_MAX);
            assert_eq!(again.as_ref().ok().and_then(Option::as_ref), Some(&packet), "{version:?}");
            assert!(encoded.is_empty(), "{version:?} leaves bytes behind {packet:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::codec;
    use rand::{Rng, SeedableRng};

    /// A short run of what the fuzzer does for long.
    #[test]
    fn what_is_taken_survives_a_round() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(11);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.random_range(0..40)).map(|_| rng.random()).collect();
            // A length that fits lets more of them in.
            if bytes.len() > 2 && rng.random_bool(0.8) {
                bytes[1] = (bytes.len() - 2) as u8;
            }
            codec(&bytes);
        }
    }
}
