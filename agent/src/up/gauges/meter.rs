//! What the hub counts as it happens: prompts in, outcomes out, how long, how sure, how fast. Numbers only.

use super::sheet::{COUNTER, GAUGE, Sheet};
use super::window::{Hour, Seen, Window, Wrote};
use std::collections::BTreeMap;
use tidegate_core::{Command, Note};
use tidegate_schemas::{Answer, Frame, Route};

/// Bins of a confidence histogram: tenths.
pub(in crate::up) const CONFIDENCE_BINS: usize = 10;
/// Upper ends of the latency histogram, in seconds: a command of a tiny model to a prompt that waited out an outage.
const LATENCY_ENDS_S: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// Tokens over which a speed is taken, of as many answers as that needs. An answer tells its time in whole milliseconds,
/// and a small model writes three tokens in two of them: only the sum over many is right, of such answers to 3 %.
const SPEED_TOKENS: u64 = 128;

/// How a prompt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::up) enum Way {
    /// Answered by the gateway's model.
    Local,
    /// Answered by a worker.
    Cloud,
    /// Answered by another gateway.
    Peer,
    /// Ended in an error.
    Error,
}

impl Way {
    /// All of them.
    pub(in crate::up) const ALL: [Self; 4] = [Self::Local, Self::Cloud, Self::Peer, Self::Error];

    /// Its word in labels and on the page.
    pub(in crate::up) fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cloud => "cloud",
            Self::Peer => "peer",
            Self::Error => "error",
        }
    }
}

/// What was counted since the start.
#[derive(Debug, Default)]
pub(in crate::up) struct Meter {
    accepted: u64,
    ways: [u64; Way::ALL.len()],
    refused: BTreeMap<&'static str, u64>,
    failed: BTreeMap<&'static str, u64>,
    escalated: BTreeMap<&'static str, u64>,
    latency: [u64; LATENCY_ENDS_S.len()],
    latency_sum_ms: u64,
    confidence: [u64; CONFIDENCE_BINS],
    confidence_sum: f64,
    tokens: (u64, u64),
    speed: Speed,
    window: Window,
}

/// The speed over the last [`SPEED_TOKENS`], and the best that it ever was: what this machine is able to, and so what is
/// expected of it. Heat, a throttled supply or a neighbour show as the distance between both.
#[derive(Debug, Default)]
struct Speed {
    wrote: Wrote,
    best: Option<f64>,
}

impl Speed {
    fn add(&mut self, wrote: Wrote) {
        self.wrote = Wrote { tokens: self.wrote.tokens + wrote.tokens, us: self.wrote.us + wrote.us };
        if self.wrote.tokens >= SPEED_TOKENS {
            let speed = std::mem::take(&mut self.wrote).tokens_per_s();
            self.best = self.best.into_iter().chain(speed).reduce(f64::max);
        }
    }
}

impl Meter {
    /// Takes what a command says, at this second of the hub's clock.
    pub(in crate::up) fn note(&mut self, command: &Command, now_s: u64) {
        match command {
            Command::Keep(_) => {
                self.accepted += 1;
                self.window.accepted(now_s);
            }
            Command::Conclude { outcome, .. } => self.ended(outcome, now_s),
            Command::Note(Note::Refused { code, .. }) => *self.refused.entry(code.as_str()).or_default() += 1,
            Command::Note(Note::Escalated { reason, .. }) => *self.escalated.entry(reason.as_str()).or_default() += 1,
            _ => {}
        }
    }

    fn ended(&mut self, outcome: &Frame, now_s: u64) {
        let seen = match outcome {
            Frame::Answer(answer) => self.answered(answer),
            Frame::Error(error) => {
                *self.failed.entry(error.code.as_str()).or_default() += 1;
                Seen { way: Way::Error, total_ms: None, confidence: None, wrote: Wrote::default() }
            }
            Frame::Accepted(_) | Frame::Token(_) => return,
        };
        self.ways[seen.way as usize] += 1;
        self.window.ended(seen, now_s);
    }

    fn answered(&mut self, answer: &Answer) -> Seen {
        let (usage, timing) = (answer.usage, answer.timing);
        self.tokens.0 += u64::from(usage.prompt_tokens);
        self.tokens.1 += u64::from(usage.completion_tokens);
        let seconds = timing.total_ms as f64 / 1000.0;
        if let Some(bin) = LATENCY_ENDS_S.iter().position(|end| seconds <= *end) {
            self.latency[bin] += 1;
        }
        self.latency_sum_ms += timing.total_ms;
        if let Some(confidence) = answer.confidence {
            self.confidence[super::window::tenth(confidence)] += 1;
            self.confidence_sum += confidence;
        }
        let way = match answer.route {
            Route::Local | Route::Stored => Way::Local,
            Route::Cloud => Way::Cloud,
            Route::Peer => Way::Peer,
        };
        // A worker's speed is not this machine's.
        let wrote = if way == Way::Local { Wrote::of(usage, timing) } else { Wrote::default() };
        self.speed.add(wrote);
        Seen { way, total_ms: Some(timing.total_ms), confidence: answer.confidence, wrote }
    }

    /// The last hour.
    pub(in crate::up) fn hour(&self, now_s: u64) -> Hour {
        self.window.hour(now_s)
    }

    /// Writes everything on a sheet.
    pub(in crate::up) fn write(&self, sheet: &mut Sheet, now_s: u64) {
        sheet.one(
            COUNTER,
            "tidegate_prompts_accepted_total",
            "Prompts accepted: on disk, to be answered.",
            self.accepted,
        );
        let rate = f64::from(self.window.last_minute(now_s)) / 60.0;
        sheet.one(GAUGE, "tidegate_prompts_per_second", "Prompts accepted per second over the last minute.", rate);
        let refused = self.refused.iter().map(|(code, n)| (*code, *n));
        sheet.each(COUNTER, "tidegate_prompts_refused_total", "Prompts refused before acceptance.", "code", refused);
        let ways = Way::ALL.map(|way| (way.word(), self.ways[way as usize]));
        sheet.each(COUNTER, "tidegate_outcomes_total", "Outcomes by where they were made.", "route", ways);
        let failed = self.failed.iter().map(|(code, n)| (*code, *n));
        sheet.each(COUNTER, "tidegate_errors_total", "Outcomes that are errors.", "code", failed);
        let escalated = self.escalated.iter().map(|(reason, n)| (*reason, *n));
        let help = "Prompts for which the cloud was asked.";
        sheet.each(COUNTER, "tidegate_escalations_total", help, "reason", escalated);
        let tokens = [("prompt", self.tokens.0), ("completion", self.tokens.1)];
        sheet.each(COUNTER, "tidegate_tokens_total", "Tokens of answers, read and written.", "kind", tokens);
        self.write_histograms(sheet);
        let hour = self.hour(now_s);
        let seconds = |ms: Option<u64>| ms.map(|ms| ms as f64 / 1000.0);
        let latency = [("50", seconds(hour.p50_ms)), ("95", seconds(hour.p95_ms))];
        let known = latency.into_iter().filter_map(|(percent, s)| Some((percent, s?)));
        let help = "Time from receipt to answer over the last hour.";
        sheet.each(GAUGE, "tidegate_answer_latency_recent_seconds", help, "percent", known);
        if let Some(now) = self.window.tokens_per_s(now_s) {
            let help = "Tokens per second of one answer, in the last two minutes.";
            sheet.one(GAUGE, "tidegate_engine_tokens_per_second", help, now);
        }
        if let Some(best) = self.speed.best {
            let help = "The best over 128 tokens in a row since the start: what this machine is able to.";
            sheet.one(GAUGE, "tidegate_engine_expected_tokens_per_second", help, best);
        }
    }

    fn write_histograms(&self, sheet: &mut Sheet) {
        let answers: u64 = self.ways.iter().take(3).sum();
        let ends = LATENCY_ENDS_S.map(|end| end.to_string());
        let bins = ends.iter().map(String::as_str).zip(self.latency);
        let (help, sum) = ("Time from receipt to answer.", self.latency_sum_ms as f64 / 1000.0);
        sheet.histogram("tidegate_answer_latency_seconds", help, bins, (answers, sum));
        let ends: Vec<String> = (1..=CONFIDENCE_BINS).map(|n| format!("{:.1}", n as f64 / 10.0)).collect();
        let bins = ends.iter().map(String::as_str).zip(self.confidence);
        let (help, count) = ("Predicted probability of being right of answers.", self.confidence.iter().sum());
        sheet.histogram("tidegate_answer_confidence_ratio", help, bins, (count, self.confidence_sum));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tidegate_schemas::{Timing, Usage};

    #[test]
    fn expected_is_the_best_that_was_sustained() {
        let mut speed = Speed::default();
        speed.add(Wrote { tokens: 50, us: 100_000 });
        assert_eq!(speed.best, None, "one answer is not enough");
        (0..200).for_each(|_| speed.add(Wrote { tokens: 16, us: 400_000 }));
        let best = speed.best.unwrap();
        (0..200).for_each(|_| speed.add(Wrote { tokens: 16, us: 1_600_000 }));
        assert_eq!(speed.best, Some(best), "what became slow is still expected to be fast");
    }

    /// As the engine tells them: the time of an answer is cut to whole milliseconds.
    #[test]
    fn short_answers_do_not_make_a_machine_look_fast() {
        let answer = |number: u64, tokens: u32, per_token_us: u64| {
            // No two take equally long.
            let us = (u64::from(tokens - 1) * per_token_us + number * 137 % 1000).saturating_sub(500);
            let usage = Usage { prompt_tokens: 9, completion_tokens: tokens };
            Wrote::of(usage, Timing { decode_ms: us / 1000, ..Timing::default() })
        };
        for (tokens, per_token_us) in [(3, 1_100), (3, 800), (16, 1_000), (200, 25_000)] {
            let mut speed = Speed::default();
            (0..1_000).for_each(|number| speed.add(answer(number, tokens, per_token_us)));
            let ratio = speed.best.unwrap() * per_token_us as f64 / 1e6;
            assert!((0.9..1.1).contains(&ratio), "{tokens} tokens of {per_token_us} us: {ratio}");
        }
        assert_eq!(answer(0, 1, 1_000), Wrote::default(), "one token has no time of its own");
    }
}
