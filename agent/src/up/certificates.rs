//! Watches the ends of certificates, CAs and revocation lists: each day one is warned of by an event, from thirty days
//! before its end; from its end on it is a fault of the gateway's health.

use super::hub::Hub;
use super::message::Report;
use crate::expiry::{Nearness, Paper, WARN_DAYS, paper};
use crate::trusted_time;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

/// How often the files are read: a renewed one is noticed within this.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What is known of the files.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    papers: Vec<Result<Paper, String>>,
    /// Days left when each was warned of last.
    warned: BTreeMap<PathBuf, i64>,
}

/// Reads the files again and again, and when one of them ends, until nobody listens.
pub(super) async fn watch(files: Vec<(&'static str, PathBuf)>, reports: mpsc::UnboundedSender<Report>) {
    loop {
        let files = files.clone();
        let look = move || files.iter().map(|(what, path)| paper(what, path)).collect::<Vec<_>>();
        let Ok(papers) = tokio::task::spawn_blocking(look).await else { return };
        let wait = wait(&papers, trusted_time::now_ms());
        if reports.send(Report::Certificates(papers)).is_err() {
            return;
        }
        tokio::select! {
            () = sleep(wait) => {}
            () = reports.closed() => return,
        }
    }
}

/// Until the files are read again: the first end that is still to come is not slept over.
fn wait(papers: &[Result<Paper, String>], now_ms: u64) -> Duration {
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let ends = papers.iter().flatten().filter_map(|paper| paper.until);
    let left = ends.filter_map(|until| u64::try_from(until.0.saturating_sub(now)).ok()).min();
    left.map_or(LOOK_EVERY, |ms| LOOK_EVERY.min(Duration::from_millis(ms + 1)))
}

impl Certificates {
    /// What is wrong now: ended, or not to be read.
    pub(super) fn faults(&self) -> Vec<String> {
        let now_ms = trusted_time::now_ms();
        let over = |paper: &Paper| (paper.nearness(now_ms) == Nearness::Over).then(|| paper.sentence(now_ms));
        self.papers.iter().filter_map(|read| read.as_ref().map_or_else(|why| Some(why.clone()), over)).collect()
    }

    /// For `status`.
    pub(super) fn json(&self) -> serde_json::Value {
        self.papers.iter().flatten().map(crate::expiry::json).collect()
    }

    /// Takes a look at the files: what is to be announced.
    fn take(&mut self, papers: Vec<Result<Paper, String>>, now_ms: u64) -> Vec<String> {
        let mut said = Vec::new();
        for paper in papers.iter().flatten() {
            let Some(days) = paper.days(now_ms).filter(|days| *days < WARN_DAYS) else {
                self.warned.remove(&paper.path);
                continue;
            };
            if self.warned.insert(paper.path.clone(), days) != Some(days) {
                said.push(paper.sentence(now_ms));
            }
        }
        self.papers = papers;
        said
    }
}

impl Hub {
    /// Files were looked at.
    pub(super) fn certificates(&mut self, papers: Vec<Result<Paper, String>>) {
        let before = self.view.certificates.faults();
        for message in self.view.certificates.take(papers, trusted_time::now_ms()) {
            warn!(kind = "certificate", %message, "announced");
            self.announce("certificate", message);
        }
        if self.view.certificates.faults() != before {
            self.tell();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::expiry::Until;

    const DAY_MS: i64 = 24 * 3600 * 1000;

    fn ending(days: i64) -> Vec<Result<Paper, String>> {
        vec![Ok(Paper { what: "certificate", path: "a.crt".into(), until: Some(Until(days * DAY_MS)) })]
    }

    #[test]
    fn an_end_is_announced_once_a_day_until_it_is_renewed() {
        let mut certificates = Certificates::default();
        let day = |n: i64| (n * DAY_MS) as u64;
        assert!(certificates.take(ending(100), day(60)).is_empty());
        assert_eq!(certificates.take(ending(100), day(75)).len(), 1);
        assert!(certificates.take(ending(100), day(75)).is_empty(), "once a day");
        assert_eq!(certificates.take(ending(100), day(77)).len(), 1);
        assert!(certificates.take(ending(300), day(77)).is_empty());
        assert_eq!(certificates.take(ending(300), day(290)).len(), 1, "a renewed one is warned of anew");
    }

    #[test]
    fn an_end_is_not_slept_over() {
        let hour_before = (DAY_MS - 3_600_000) as u64;
        for (now_ms, expect) in [
            (hour_before, LOOK_EVERY),
            ((DAY_MS - 7) as u64, Duration::from_millis(8)),
            (DAY_MS as u64 + 1, LOOK_EVERY),
        ] {
            assert_eq!(wait(&ending(1), now_ms), expect, "{now_ms}");
        }
        assert_eq!(wait(&[Err("gone".to_owned())], 0), LOOK_EVERY);
    }

    #[test]
    fn what_ended_or_is_gone_is_a_fault() {
        let mut certificates = Certificates::default();
        certificates.take(ending(1), 0);
        assert!(certificates.faults()[0].contains("a.crt ended on 1970-01-02"), "{:?}", certificates.faults());
        certificates.take(vec![Err("certificate a.crt: gone".to_owned())], 0);
        assert_eq!(certificates.faults(), ["certificate a.crt: gone"]);
    }
}
