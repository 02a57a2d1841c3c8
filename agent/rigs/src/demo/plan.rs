//! Who publishes what, when, and when the link breaks: fixed by the prompts alone, so that every demo is the same.

use crate::prompts::Line;
use tidegate_schemas::{DeadlineMs, Prompt};

/// Devices of the demo.
pub(super) const DEVICES: usize = 8;
/// Least deadline, in milliseconds: generous for an answer from either side of a working link.
const DEADLINE_MS_MIN: u64 = 20_000;
/// Deadlines differ in steps of a second, up to a minute.
const DEADLINE_STEPS: u64 = 41;

/// When the link changes, as a share of the prompts that are published.
pub(super) const SILENT_FROM: f64 = 0.3;
/// When every connection over the link is reset; new ones meet silence.
pub(super) const RESET_AT: f64 = 0.6;
/// When it works again.
pub(super) const MENDED_AT: f64 = 0.8;

/// The device that publishes a line.
pub(super) fn device_of(line: usize) -> usize {
    line % DEVICES
}

/// The prompt of a line: half of all have deadlines, a tenth streams, and neither goes by device.
pub(super) fn prompt(number: usize, line: &Line) -> Prompt {
    let round = number / DEVICES;
    let steps = (number as u64 * 17) % DEADLINE_STEPS;
    let deadline = DeadlineMs::new(DEADLINE_MS_MIN + 1_000 * steps).filter(|_| (number + round).is_multiple_of(2));
    Prompt {
        task: Some(line.task().name().parse().expect("the shipped tasks have valid names")),
        deadline_ms: deadline,
        stream: number.is_multiple_of(10),
        ..Prompt::bare(&line.prompt)
    }
}

/// The prompt of a set of `prompts` before which something happens.
pub(super) fn at(share: f64, prompts: usize) -> usize {
    (share * prompts as f64).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::shipped;

    #[test]
    fn half_have_deadlines_and_a_tenth_streams_on_every_device() {
        let lines = shipped();
        let prompts: Vec<Prompt> = lines.iter().enumerate().map(|(n, line)| prompt(n, line)).collect();
        let deadlines: Vec<u64> = prompts.iter().filter_map(|p| p.deadline_ms).map(DeadlineMs::get).collect();
        assert_eq!(deadlines.len(), 100);
        assert!(deadlines.iter().all(|ms| (20_000..=60_000).contains(ms)));
        assert_eq!(prompts.iter().filter(|p| p.stream).count(), 20);
        for device in 0..DEVICES {
            let own = prompts.iter().enumerate().filter(|(n, _)| device_of(*n) == device);
            let with = own.clone().filter(|(_, p)| p.deadline_ms.is_some()).count();
            assert!(with > 0 && with < own.count(), "device {device} has {with} deadlines");
        }
    }

    #[test]
    fn the_link_breaks_and_heals_while_prompts_are_published() {
        let moments = [SILENT_FROM, RESET_AT, MENDED_AT].map(|share| at(share, 200));
        assert_eq!(moments, [60, 120, 160]);
    }
}
