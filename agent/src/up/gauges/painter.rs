//! One picture of the gateway at a time, for everybody who looks: asked of the hub, the store and the machine when
//! somebody wants it and the last is older than a second. A task of its own owns it; readers wait in a bounded line.
//!
//! Invariant: a hub that does not answer is a picture, too: one that says so.

use super::facts::{Facts, Part};
use super::host::{self, Writes};
use super::sheet::{COUNTER, GAUGE, Sheet};
use crate::expiry::paper;
use crate::queue::{room, row};
use crate::trusted_time;
use crate::up::message::{Input, Report};
use crate::up::page::Turned;
use bytes::Bytes;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_schemas::JobId;
use tidegate_spool::{QueueClass, Spool, Stored, WallClock};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};

/// How old a picture may be: a person sees no more than a change per second, and Prometheus asks every 15 s.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for the hub, or for the store: each answers in milliseconds, or something is wrong with it.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often the numbers are told on the local broker: a dashboard there needs no more, and an idle gateway sleeps.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Readers that wait for a picture: all connections of the page at once, twice.
const READERS_MAX: usize = 512;

/// What the gateway looks like at one moment.
#[derive(Debug)]
pub(in crate::up) struct Picture {
    taken: Instant,
    /// For the page.
    pub(in crate::up) page: Bytes,
    /// For Prometheus.
    pub(in crate::up) metrics: Bytes,
    /// The same numbers as one flat JSON object.
    pub(in crate::up) numbers: Bytes,
    /// Door, spool, engine, link, and how each is.
    pub(in crate::up) parts: Vec<Part>,
    /// Whether new prompts are taken.
    pub(in crate::up) draining: bool,
}

impl Picture {
    /// Whether the process should live: hub and store work. An engine or a link that is away comes back by itself.
    pub(in crate::up) fn alive(&self) -> bool {
        self.parts.iter().all(|part| part.ok || !matches!(part.name, "hub" | "spool"))
    }

    /// Whether prompts are answered here and now. The link is not needed for that.
    pub(in crate::up) fn ready(&self) -> bool {
        !self.draining && self.parts.iter().all(|part| part.ok || part.name == "link")
    }
}

/// The readers' end.
#[derive(Clone)]
pub(in crate::up) struct Views(mpsc::Sender<oneshot::Sender<Arc<Picture>>>);

impl Views {
    /// A picture that is fresh; none when the gateway is stopping.
    pub(in crate::up) async fn look(&self) -> Option<Arc<Picture>> {
        let (reply, picture) = oneshot::channel();
        self.0.send(reply).await.ok()?;
        picture.await.ok()
    }
}

/// A certificate of ours, and what it is for: a word of a handful.
#[derive(Debug, Clone)]
pub(in crate::up) struct Certificate {
    /// `door`, `bridge`, `intake`, `page`.
    pub(in crate::up) part: &'static str,
    /// Its PEM file.
    pub(in crate::up) file: PathBuf,
}

/// What is looked at besides the hub.
pub(in crate::up) struct Watched {
    pub(in crate::up) spool: Spool,
    pub(in crate::up) data_dir: PathBuf,
    /// Free bytes under which no prompt is accepted.
    pub(in crate::up) free_bytes_min: u64,
    pub(in crate::up) certificates: Vec<Certificate>,
    pub(in crate::up) turned: Arc<Turned>,
}

/// Makes the pictures.
pub(in crate::up) struct Painter {
    inputs: mpsc::Sender<Input>,
    reports: mpsc::UnboundedSender<Report>,
    watched: Watched,
    readers: mpsc::Receiver<oneshot::Sender<Arc<Picture>>>,
    last: Option<Arc<Picture>>,
}

impl Painter {
    /// A painter and its readers' end.
    pub(in crate::up) fn new(
        inputs: mpsc::Sender<Input>,
        reports: mpsc::UnboundedSender<Report>,
        watched: Watched,
    ) -> (Self, Views) {
        let (views, readers) = mpsc::channel(READERS_MAX);
        (Self { inputs, reports, watched, readers, last: None }, Views(views))
    }

    /// Paints until the hub is gone.
    pub(in crate::up) async fn run(mut self) {
        let mut tell = interval(TELL_EVERY);
        loop {
            let inputs = self.inputs.clone();
            tokio::select! {
                reader = self.readers.recv() => {
                    let Some(reader) = reader else { return };
                    let _ = reader.send(self.picture().await);
                }
                _ = tell.tick() => {
                    let numbers = self.picture().await.numbers.clone();
                    let _ = self.reports.send(Report::Numbers(numbers));
                }
                () = inputs.closed() => return,
            }
        }
    }

    async fn picture(&mut self) -> Arc<Picture> {
        if let Some(last) = self.last.as_ref().filter(|last| last.taken.elapsed() < FRESH) {
            return last.clone();
        }
        let (reply, facts) = oneshot::channel();
        let asked = async {
            self.inputs.send(Input::Facts(reply)).await.ok()?;
            facts.await.ok()
        };
        let picture = Arc::new(match timeout(ANSWER_MAX, asked).await {
            Ok(Some(facts)) => self.paint(*facts).await,
            Ok(None) | Err(_) => silent(),
        });
        self.last = Some(picture.clone());
        picture
    }

    async fn paint(&self, facts: Facts) -> Picture {
        let Facts { mut sheet, mut parts, mut about, oldest_outcome, engine_pid, disk_retries, read_only, draining } =
            facts;
        let mut disk = host::disk(&self.watched.data_dir);
        // The mount's flags do not always tell it.
        disk.iter_mut().filter(|_| read_only).for_each(|disk| disk.writes = Writes::Refused);
        let spool = self.spool_part(disk, disk_retries);
        parts.insert(1.min(parts.len()), spool);
        let ages = self.ages(oldest_outcome).await;
        sheet.each(GAUGE, "tidegate_queue_oldest_age_seconds", "Age of the oldest entry of a class.", "class", ages);
        let floor = self.watched.free_bytes_min;
        sheet.one(GAUGE, "tidegate_disk_free_min_bytes", "Free room under which no prompt is accepted.", floor);
        host::write(&mut sheet, engine_pid, disk);
        self.write_certificates(&mut sheet);
        let trusted = trusted_time::look() == WallClock::Synchronised;
        sheet.one(GAUGE, "tidegate_clock_synchronised", "Whether a time source corrects the clock.", trusted);
        let help = "Requests that the page did not serve, or not at once.";
        let turned = self.watched.turned.counts();
        sheet.each(COUNTER, "tidegate_page_turned_away_total", help, "why", turned);
        let working = parts.iter().map(|part| (part.name, part.ok));
        sheet.each(GAUGE, "tidegate_part_ok", "Whether a part of the gateway works.", "part", working);
        let numbers = Value::from(sheet.numbers().clone());
        if let Some(about) = about.as_object_mut() {
            about.insert("parts".to_owned(), json!(parts));
            about.insert("numbers".to_owned(), numbers.clone());
        }
        Picture {
            taken: Instant::now(),
            page: about.to_string().into(),
            metrics: sheet.text().to_owned().into(),
            numbers: numbers.to_string().into(),
            parts,
            draining,
        }
    }

    fn spool_part(&self, disk: Option<host::Disk>, retries: usize) -> Part {
        let min = self.watched.free_bytes_min;
        let fault = match disk {
            Some(disk) if disk.writes == Writes::Refused => {
                Some("the disk is read-only: new prompts are refused, what was accepted waits".to_owned())
            }
            Some(disk) if disk.free < min => {
                Some(format!("the disk has {} bytes free, {min} are needed for new prompts", disk.free))
            }
            _ if retries > 0 => Some(format!("the disk refuses {retries} changes, they are tried again")),
            _ => None,
        };
        Part { name: "spool", ok: fault.is_none(), words: fault.unwrap_or_else(|| "takes prompts".to_owned()) }
    }

    /// Seconds since the oldest entry of each class came; zero for one that is empty.
    async fn ages(&self, outcome: Option<JobId>) -> Vec<(&'static str, u64)> {
        let mut ages = Vec::with_capacity(QueueClass::ALL.len());
        for class in QueueClass::ALL {
            let oldest = match (class, outcome) {
                (QueueClass::Outcomes, None) => None,
                (QueueClass::Outcomes, Some(job)) => self.read(class, Some(job.0)).await,
                _ => self.read(class, None).await,
            };
            // An escalation is as old as its prompt.
            let oldest = match oldest {
                Some(Stored::Escalation(record)) => self.read(QueueClass::Prompts, Some(record.job.0)).await,
                other => other,
            };
            let age_ms = oldest.as_ref().and_then(|stored| row(stored)["age_ms"].as_u64());
            ages.push((class.name(), age_ms.unwrap_or(0) / 1000));
        }
        ages
    }

    /// The entry of that number, or the first of the class.
    async fn read(&self, class: QueueClass, number: Option<u64>) -> Option<Stored> {
        let (sender, found) = oneshot::channel();
        match number {
            Some(number) => self.watched.spool.stored(class, number, move |stored| drop(sender.send(stored))),
            None => self.watched.spool.page(class, 0, room(1), move |page| drop(sender.send(page.into_iter().next()))),
        }
        timeout(ANSWER_MAX, found).await.ok()?.ok().flatten()
    }

    fn write_certificates(&self, sheet: &mut Sheet) {
        // Read from its file each time, so that a renewed one counts at once; one that cannot be read is a fault elsewhere.
        let end = |c: &Certificate| Some((c.part, paper(c.part, &c.file).ok()?.until?.0 as f64 / 1000.0));
        let ends = self.watched.certificates.iter().filter_map(end);
        let help = "When a certificate of ours ends, since 1970.";
        sheet.each(GAUGE, "tidegate_certificate_expiry_timestamp_seconds", help, "part", ends);
    }
}

/// What is seen of a hub that does not answer.
fn silent() -> Picture {
    let words = format!("does not answer within {} s", ANSWER_MAX.as_secs());
    let parts = vec![Part { name: "hub", ok: false, words }];
    let mut sheet = Sheet::default();
    sheet.each(GAUGE, "tidegate_part_ok", "Whether a part of the gateway works.", "part", [("hub", false)]);
    let page = json!({ "parts": parts, "numbers": {}, "faults": ["the hub does not answer"] }).to_string();
    let numbers = Value::from(sheet.numbers().clone()).to_string();
    let metrics = sheet.text().to_owned().into();
    Picture { taken: Instant::now(), page: page.into(), metrics, numbers: numbers.into(), parts, draining: false }
}
