//! How fast the model should be here: an estimate from what this machine can read, to hold the measured speed against.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Smallest and largest buffer that is read: what fits no cache says what memory gives, more says no more.
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=128 << 20;
/// How long is read; the fastest pass counts, since others may use the machine.
const READ_FOR: Duration = Duration::from_millis(200);
/// Time of a token that no reading explains: barriers between threads, sampling, a frame. Measured with tide-edge on two
/// cores of a server; smaller processors take a few times as much, which [`SLOW_SHARE`] leaves room for.
const TOKEN_REST: Duration = Duration::from_micros(600);
/// Below this share of the estimate something is wrong: heat, power, another load, a wrong build.
pub(super) const SLOW_SHARE: f64 = 1.0 / 3.0;

/// Tokens per second of one prompt at a time. To write a token all weights are read once: the roofline model (Williams,
/// Waterman, Patterson, 2009) at the low arithmetic intensity of a batch of one.
pub(super) fn expected(weights: u64) -> f64 {
    from(weights, bandwidth(weights))
}

fn from(weights: u64, bytes_per_s: f64) -> f64 {
    1.0 / (weights as f64 / bytes_per_s.max(1.0) + TOKEN_REST.as_secs_f64())
}

/// Bytes per second that all cores together read from a buffer of the size of the weights.
fn bandwidth(weights: u64) -> f64 {
    let bytes = weights.clamp(*BUFFER_BYTES.start(), *BUFFER_BYTES.end());
    let words = usize::try_from(bytes / 8).unwrap_or(usize::MAX);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let buffer: Vec<u64> = (0..words as u64).collect();
    let share = words.div_ceil(cores);
    let begin = Instant::now();
    let mut fastest = Duration::MAX;
    while begin.elapsed() < READ_FOR {
        let pass = Instant::now();
        thread::scope(|scope| {
            for part in buffer.chunks(share) {
                scope.spawn(|| black_box(part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        fastest = fastest.min(pass.elapsed());
    }
    (words * 8) as f64 / fastest.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_a_gibibyte_at_ten_gigabytes_per_second_writes_nine_tokens() {
        let speed = from(1 << 30, 1e10);
        assert!((9.2..9.3).contains(&speed), "{speed}");
        assert!(from(4_000_000, 1e10) < 1.0 / TOKEN_REST.as_secs_f64());
    }

    #[test]
    fn this_machine_reads_something() {
        let speed = bandwidth(4 << 20);
        assert!(speed > 1e7, "{speed} bytes per second");
    }
}
