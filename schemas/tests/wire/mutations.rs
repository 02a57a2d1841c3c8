//! Hostile payloads: golden ones, damaged by a seeded generator. No panic, no decode that takes long.

use crate::samples;
use std::time::{Duration, Instant};
use tidegate_schemas::{decode_control, decode_escalation, decode_prompt, decode_resolution};

/// Payloads that are tried.
const PAYLOADS: u32 = 200_000;
/// A decode of one payload takes microseconds; a loaded machine may stall one for long, so only minutes would be a
/// finding, and quadratic work on 64 KiB takes those.
const ONE_MAX: Duration = Duration::from_secs(10);
/// Damaged payloads stay below this, in bytes: most faults need few bytes, and the test stays quick.
const BYTES_MAX: usize = 4096;

/// SplitMix64 (Steele et al. 2014): seeded, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }
}

/// Bytes that mean something: CBOR heads of every type and length, floats, breaks, tags, JSON's structure.
const TELLING: [u8; 32] = [
    0x00, 0x18, 0x1b, 0x20, 0x3b, 0x40, 0x5b, 0x5f, 0x60, 0x7b, 0x7f, 0x80, 0x9b, 0x9f, 0xa0, 0xbb, 0xbf, 0xc0, 0xd9,
    0xf6, 0xf7, 0xf9, 0xfb, 0xff, b'{', b'}', b'[', b'"', b'\\', b',', b'-', b'9',
];

fn damage(payload: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(payload.len());
    match dice.below(7) {
        0 if !payload.is_empty() => payload[at] ^= 1 << dice.below(8),
        1 if !payload.is_empty() => payload[at] = TELLING[dice.below(TELLING.len())],
        2 => payload.truncate(at),
        3 => payload.insert(at, TELLING[dice.below(TELLING.len())]),
        4 => drop(payload.splice(at.., other[dice.below(other.len())..].iter().copied())),
        5 => {
            let end = at + dice.below(payload.len() - at);
            let piece = payload[at..end].repeat(1 + dice.below(16));
            payload.splice(at..end, piece);
        }
        _ => {
            let end = at + dice.below(9.min(payload.len() - at));
            payload[at..end].fill(0xff);
        }
    }
    payload.truncate(BYTES_MAX);
}

#[test]
fn damaged_payloads_end_in_a_value_or_an_error() {
    let seeds: Vec<Vec<u8>> = samples::all().into_iter().map(|g| g.bytes).collect();
    let mut dice = Dice(20_261_121);
    let (mut taken, mut refused) = (0_u32, 0_u32);
    for _ in 0..PAYLOADS {
        let mut payload = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(4) {
            let other = &seeds[dice.below(seeds.len())];
            damage(&mut payload, other, &mut dice);
        }
        let start = Instant::now();
        let results = [
            decode_prompt(&payload).is_ok(),
            decode_control(&payload).is_ok(),
            decode_escalation(&payload).is_ok(),
            decode_resolution(&payload).is_ok(),
        ];
        assert!(start.elapsed() < ONE_MAX, "{:?} for {payload:02x?}", start.elapsed());
        let ok = results.iter().any(|ok| *ok);
        *(if ok { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused: the damage is too weak or too strong");
}

#[test]
fn the_worst_of_64_kib_is_quick() {
    let fill = |unit: &[u8]| unit.repeat(64 * 1024 / unit.len());
    let table = [
        ("deep arrays", fill(b"\x81")),
        ("deep maps", fill(b"\xa1\x61x")),
        ("unknown ints", [b"\xa1\x61x\x99\xff\x00".to_vec(), vec![0; 65_280]].concat()),
        ("huge length", [b"\xa1\x65input\x7b".to_vec(), vec![0xff; 8]].concat()),
        ("huge map", [b"\xbb".to_vec(), vec![0xff; 8]].concat()),
        ("chunked text", [b"\xbf\x65input\x7f".to_vec(), fill(b"\x60")[..60_000].to_vec()].concat()),
        ("deep JSON", [b"{\"x\":".to_vec(), fill(b"[")[..60_000].to_vec()].concat()),
        ("long number", [b"{\"priority\":".to_vec(), fill(b"9")[..60_000].to_vec(), b"}".to_vec()].concat()),
        ("escapes", [b"{\"input\":\"".to_vec(), fill(b"\\u0041")[..60_000].to_vec(), b"\"".to_vec()].concat()),
    ];
    for (name, payload) in table {
        let start = Instant::now();
        let refused = decode_prompt(&payload).is_err() && decode_escalation(&payload).is_err();
        assert!(refused && start.elapsed() < ONE_MAX, "{name}: refused {refused} after {:?}", start.elapsed());
    }
}
