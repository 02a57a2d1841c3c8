//! What the demo tells at its end: who answered, how well, how fast, how deep the queues were, and the two counts.

use super::stage::Played;
use super::{Cast, Options};
use crate::alone::{Alone, measure};
use crate::draw::{Sample, span_line, sparkline};
use crate::figures::{percent_of, percentile, shown};
use crate::ledger::{Entry, Tally};
use crate::prompts::Line;
use crate::report::{table, write_json};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use tidegate_schemas::{Answer, Frame, Route};

/// Prints everything; the last two lines are the counts, and the exit status agrees with them.
pub(super) fn give(cast: &Cast, played: &Played, options: &Options) -> anyhow::Result<ExitCode> {
    println!("{}", answers(played));
    println!("{}", table(&["latency, ms", "prompts", "p50", "p95"], &latencies(&played.entries)));
    println!("{}", drawing(played));
    println!("drawn in {}", options.html()?.display());
    let (up, down) = played.link_bytes;
    println!("bytes over the link: {up} from the gateway, {down} to it\n");
    println!("Accuracy in percent; the models alone ran over the same prompts, without gateway or network:");
    let edge = measure(&cast.edge, &cast.lines)?;
    let cloud = measure(&cast.cloud, &cast.lines)?;
    let scores = scores(&cast.lines, &played.entries, &edge, &cloud);
    println!("{}", table(&["", "prompts", "right", "%"], &scores.iter().map(Score::row).collect::<Vec<_>>()));
    if let Some(path) = &options.json {
        write_json(path, &figures(played, &scores))?;
    }
    Ok(end(&played.tally))
}

/// The last lines.
fn end(tally: &Tally) -> ExitCode {
    if tally.refused > 0 {
        println!("refused {}", tally.refused);
    }
    if tally.strangers > 0 {
        println!("frames for nobody {}", tally.strangers);
    }
    println!("lost {}", tally.open());
    println!("second outcomes {}", tally.seconds);
    if is_whole(tally) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_whole(tally: &Tally) -> bool {
    tally.published > 0 && tally.open() + tally.seconds + tally.refused + tally.strangers == 0
}

fn final_answer(entry: &Entry) -> Option<&Answer> {
    match &entry.outcome.as_ref()?.frame {
        Frame::Answer(answer) => Some(answer),
        Frame::Error(_) | Frame::Accepted(_) | Frame::Token(_) => None,
    }
}

/// Who answered, and why the answers took their way.
fn answers(played: &Played) -> String {
    let by_route = |route| played.entries.iter().filter(|e| final_answer(e).is_some_and(|a| a.route == route)).count();
    let provisional = played.entries.iter().filter(|e| e.provisional.is_some()).count();
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    for entry in &played.entries {
        let way = match entry.outcome.as_ref().map(|seen| &seen.frame) {
            Some(Frame::Answer(answer)) => format!("{} {}", route_word(answer.route), answer.reason),
            Some(Frame::Error(error)) => format!("error {}", error.code),
            Some(Frame::Accepted(_) | Frame::Token(_)) | None => "no outcome".to_owned(),
        };
        *ways.entry(way).or_default() += 1;
    }
    let ways: Vec<String> = ways.into_iter().map(|(way, count)| format!("{way} {count}")).collect();
    format!(
        "{} prompts: {} answered locally, {} by the cloud, {provisional} provisionally first\n  ({})\n",
        played.entries.len(),
        by_route(Route::Local),
        by_route(Route::Cloud),
        ways.join(", ")
    )
}

fn route_word(route: Route) -> &'static str {
    match route {
        Route::Local => "local",
        Route::Cloud => "cloud",
        Route::Peer => "peer",
        Route::Stored => "stored",
    }
}

fn latencies(entries: &[Entry]) -> Vec<Vec<String>> {
    let since = |entry: &Entry, at_us: Option<u64>| Some(at_us?.saturating_sub(entry.published_us) as f64 / 1e3);
    let of = |route: Route| {
        let own = entries.iter().filter(move |e| final_answer(e).is_some_and(|a| a.route == route));
        own.filter_map(|e| since(e, e.outcome.as_ref().map(|seen| seen.at_us))).collect::<Vec<f64>>()
    };
    let accepted: Vec<f64> = entries.iter().filter_map(|e| since(e, e.accepted_us)).collect();
    let provisional: Vec<f64> =
        entries.iter().filter_map(|e| since(e, e.provisional.as_ref().map(|seen| seen.at_us))).collect();
    let row = |name: &str, ms: &[f64]| {
        vec![name.to_owned(), ms.len().to_string(), shown(percentile(ms, 50.0), 1), shown(percentile(ms, 95.0), 1)]
    };
    vec![
        row("PUBLISH to accepted", &accepted),
        row("PUBLISH to local answer", &of(Route::Local)),
        row("PUBLISH to provisional answer", &provisional),
        row("PUBLISH to cloud answer", &of(Route::Cloud)),
    ]
}

/// Queue depths over the outage, as lines of text.
fn drawing(played: &Played) -> String {
    let samples = &played.samples;
    let end_s = samples.iter().map(|s| s.at_s).fold(0.0, f64::max);
    let line = |name: &str, depth: fn(&Sample) -> u64| {
        let points: Vec<(f64, u64)> = samples.iter().map(|s| (s.at_s, depth(s))).collect();
        let peak = points.iter().map(|p| p.1).max().unwrap_or(0);
        format!("  {name:<9}|{}| peak {peak}\n", sparkline(&points, end_s))
    };
    format!(
        "queue depths over {end_s:.0} s ({} samples)\n{}{}{}  link cut |{}| {:.1} to {:.1} s",
        samples.len(),
        line("inbox", |s| s.inbox),
        line("outbox", |s| s.outbox),
        line("outcomes", |s| s.outcomes),
        span_line(played.outage, end_s),
        played.outage.from_s,
        played.outage.to_s
    )
}

struct Score {
    who: &'static str,
    judged: usize,
    right: usize,
}

impl Score {
    fn of(who: &'static str, verdicts: impl Iterator<Item = bool>) -> Self {
        let verdicts: Vec<bool> = verdicts.collect();
        Self { who, judged: verdicts.len(), right: verdicts.iter().filter(|right| **right).count() }
    }

    fn percent(&self) -> Option<f64> {
        percent_of(self.right, self.judged)
    }

    fn row(&self) -> Vec<String> {
        vec![self.who.to_owned(), self.judged.to_string(), self.right.to_string(), shown(self.percent(), 1)]
    }
}

/// How right each was, over the prompts whose answer is known. A prompt without an answer counts as wrong overall.
fn scores(lines: &[Line], entries: &[Entry], edge: &Alone, cloud: &Alone) -> Vec<Score> {
    let verdict = |entry: &Entry, answer: &Answer| lines.get(entry.line as usize)?.judges(&answer.body);
    let of = |route: Route| {
        let own = entries.iter().filter_map(|e| Some((e, final_answer(e)?))).filter(move |(_, a)| a.route == route);
        own.filter_map(|(e, a)| verdict(e, a))
    };
    let known = entries.iter().filter(|e| lines.get(e.line as usize).is_some_and(Line::is_known));
    let all = known.map(|e| final_answer(e).and_then(|a| verdict(e, a)).unwrap_or(false));
    let provisional = entries.iter().filter_map(|e| match &e.provisional.as_ref()?.frame {
        Frame::Answer(answer) => verdict(e, answer),
        Frame::Error(_) | Frame::Accepted(_) | Frame::Token(_) => None,
    });
    let alone = |alone: &Alone| alone.answers.iter().filter_map(|a| a.right).collect::<Vec<bool>>().into_iter();
    vec![
        Score::of("answered locally", of(Route::Local)),
        Score::of("answered by the cloud", of(Route::Cloud)),
        Score::of("provisional answers", provisional),
        Score::of("all final answers", all),
        Score::of("tide-edge alone", alone(edge)),
        Score::of("tide-cloud alone", alone(cloud)),
    ]
}

fn figures(played: &Played, scores: &[Score]) -> serde_json::Value {
    let scores: BTreeMap<&str, _> =
        scores.iter().map(|s| (s.who, json!({"judged": s.judged, "right": s.right, "percent": s.percent()}))).collect();
    json!({
        "rig": "demo",
        "devices": played.tally,
        "scores": scores,
        "latency_ms": latencies(&played.entries),
        "samples": played.samples,
        "outage_s": [played.outage.from_s, played.outage.to_s],
        "link_bytes": {"up": played.link_bytes.0, "down": played.link_bytes.1},
        "lost": played.tally.open(),
        "second_outcomes": played.tally.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(settled: u32, seconds: u32, refused: u32) -> Tally {
        Tally { published: 10, settled, refused, seconds, ..Tally::default() }
    }

    #[test]
    fn only_a_whole_account_is_a_success() {
        assert!(is_whole(&tally(10, 0, 0)));
        assert!(!is_whole(&tally(9, 0, 0)), "a lost prompt");
        assert!(!is_whole(&tally(10, 1, 0)), "a second outcome");
        assert!(!is_whole(&tally(9, 0, 1)), "a refused prompt");
        assert!(!is_whole(&Tally::default()), "nothing was asked");
    }
}
