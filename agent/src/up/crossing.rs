//! General publishes that a rule takes: on disk before their PUBACK, then the bridge's.

use super::bridge::VIA;
use super::message::{Report, Task};
use crate::link::{Rules, Taken};
use std::sync::Arc;
use std::time::Duration;
use tidegate_broker::{Forwarding, Kept};
use tidegate_schemas::{DeviceId, Origin, Priority};
use tidegate_spool::{Change, ForwardId, ForwardProperties, ForwardRecord, Spool, SpoolError, Stamp};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, warn};

/// Gateways that a message may have passed: a chain of sites is shorter, a loop without names is longer.
const HOPS_MAX: usize = 4;

/// Where what crosses is kept.
pub(super) struct Crossings {
    pub(super) origin: Origin,
    pub(super) rules: Arc<Rules>,
    pub(super) spool: Spool,
    /// Rung when one is on disk.
    pub(super) bell: Arc<Notify>,
}

impl Crossings {
    /// Keeps a publish if a rule takes it; resolves when it is on disk, or not.
    pub(super) fn take(
        &self,
        publish: Forwarding<'_>,
        reports: &mpsc::UnboundedSender<Report>,
    ) -> Option<Kept<Result<(), &'static str>>> {
        let record = self.record(&publish)?;
        let (kept, word) = oneshot::channel();
        let (bell, reports) = (self.bell.clone(), reports.clone());
        self.spool.submit(Change::Forward(record), move |result| {
            let fate = fate(&result);
            if fate.is_ok() {
                bell.notify_one();
            }
            if let Err(SpoolError::Poisoned(_) | SpoolError::Stopped) = &result {
                let _ = reports.send(Report::Disk(Task::Forward, result));
            }
            let _ = kept.send(fate);
        });
        Some(Box::pin(async move { word.await.unwrap_or(Err("the gateway is stopping")) }))
    }

    fn record(&self, publish: &Forwarding<'_>) -> Option<ForwardRecord> {
        let (rule, crossing) = match self.rules.take(publish.topic) {
            Taken::Crosses(rule, crossing) => (rule, crossing),
            Taken::Barred(rule, why) => {
                warn!(rule = rule.name(), why, "a publish stays, although a rule matches it");
                return None;
            }
            Taken::Stays => return None,
        };
        let Some(via) = passed(publish.via, &self.origin) else {
            debug!(rule = rule.name(), "a publish that came round stays");
            return None;
        };
        let ttl = crossing.ttl.map(ms).into_iter().chain(publish.expiry_ms).min();
        Some(ForwardRecord {
            // The store gives the number.
            entry: ForwardId(0),
            source: source(publish.source),
            rule: rule.name().to_owned(),
            topic: crossing.topic,
            payload: publish.payload.to_vec(),
            retain: publish.retain,
            priority: Priority::new(crossing.class.priority()).unwrap_or_default(),
            ttl_ms: ttl,
            stamp: Stamp::now(),
            properties: ForwardProperties { user: vec![(VIA.to_owned(), via)], ..ForwardProperties::default() },
        })
    }
}

/// The gateways that a message has passed, with this one; none if it has been here, or passed too many.
fn passed(via: Option<&str>, origin: &Origin) -> Option<String> {
    let own = origin.to_string();
    let Some(via) = via.filter(|via| !via.is_empty()) else { return Some(own) };
    let hops = via.split(',').count();
    (hops < HOPS_MAX && !via.split(',').any(|hop| hop == own)).then(|| format!("{via},{own}"))
}

/// Whom the bounds of a device count: the publisher's name as far as it is an identifier.
fn source(name: &str) -> DeviceId {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' };
    let name: String = name.chars().map(allowed).take(64).collect();
    name.parse().unwrap_or_else(|_| "unnamed".parse().expect("seven letters are an identifier"))
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn fate(result: &Result<(), SpoolError>) -> Result<(), &'static str> {
    match result {
        Ok(()) => Ok(()),
        Err(SpoolError::Full { .. }) => Err("there is no room for what crosses to the central broker"),
        Err(_) => Err("the disk does not take it now"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_here_or_everywhere_goes_no_further() {
        let origin = Origin { site: "s".parse().unwrap(), gateway: "g".parse().unwrap() };
        for (via, expect) in [
            (None, Some("s/g")),
            (Some(""), Some("s/g")),
            (Some("a/b"), Some("a/b,s/g")),
            (Some("a/b,s/g"), None),
            (Some("s/g,a/b"), None),
            (Some("a/a,a/b,a/c"), Some("a/a,a/b,a/c,s/g")),
            (Some("a/a,a/b,a/c,a/d"), None),
            (Some("s/gg"), Some("s/gg,s/g")),
        ] {
            assert_eq!(passed(via, &origin).as_deref(), expect, "{via:?}");
        }
    }

    #[test]
    fn every_publisher_has_a_name_to_count_by() {
        assert_eq!(source("pump-7").as_str(), "pump-7");
        assert_eq!(source("a b/c").as_str(), "a_b_c");
        assert_eq!(source("").as_str(), "unnamed");
        assert_eq!(source(&"x".repeat(99)).as_str().len(), 64);
    }
}
