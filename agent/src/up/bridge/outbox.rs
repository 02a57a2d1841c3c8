//! The outbox against a scripted broker: sessions, feed and store as they are, over a line on which a test plays every
//! order of numbers, words, losses, reconnects and restarts. What the broker took is gone from the store, nothing else
//! is, and every escalation hears exactly one word for each time that it was ordered.
#![allow(clippy::unwrap_used)]

use super::budget::Budget;
use super::feed::Feed;
use super::past::Past;
use super::session::Session;
use super::shore::Shore;
use super::watch::{Patience, Watch};
use crate::link::{Ack, Delivery, Heard, Line, Parcel, Rules, Said, Version, Welcome};
use crate::up::message::{Report, ToBridge};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, mpsc::sync_channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate_core::Event;
use tidegate_schemas::{DeviceId, Escalation, JobId, Origin, Priority, Prompt, Reason, TaskSpec, decode_escalation};
use tidegate_spool::{
    Change, Counts, ForwardId, ForwardProperties, ForwardRecord, Limits, QueueClass, Room, Spool, Stamp, Stored,
};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};

/// What the broker announces: one place of it stays free.
const RECEIVE_MAX: u16 = 4;
/// Longest time that a link stands still; no test waits for it.
const STILL: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
enum Step {
    /// A device publishes so many items that a rule takes.
    Store(u64),
    /// The hub orders an escalation.
    Escalate,
    /// The oldest publish gets its packet id.
    Number,
    /// The broker has a word for one of those that have one.
    Answer(usize, Ack),
    /// It acknowledges a packet id that is nobody's.
    Stray(u16),
    /// The connection breaks, and there is another one.
    Lose,
    /// The gateway ends and starts again.
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let word = prop_oneof![
        6 => Just(Ack::Taken),
        1 => Just(Ack::Nobody),
        1 => Just(Ack::Later("quota exceeded (0x97)")),
        1 => Just(Ack::Never("not authorised (0x87)")),
    ];
    prop_oneof![
        4 => (1..4_u64).prop_map(Step::Store),
        2 => Just(Step::Escalate),
        8 => Just(Step::Number),
        8 => (0..8_usize, word).prop_map(|(at, word)| Step::Answer(at, word)),
        2 => (1..8_u16).prop_map(Step::Stray),
        2 => Just(Step::Lose),
        1 => Just(Step::Restart),
    ]
}

/// What a publish carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Item(u64),
    Escalation(u64),
}

/// What should be.
#[derive(Default)]
struct Model {
    /// Items in the store.
    stored: BTreeSet<u64>,
    /// Letters.
    dead: u64,
    /// Items that were published, and that an earlier run had.
    published: BTreeSet<u64>,
    restored: BTreeSet<u64>,
    items: u64,
    orders: u64,
    /// Escalations that the broker took.
    sent: BTreeSet<u64>,
}

struct World<'a> {
    runtime: &'a Runtime,
    dir: TempDir,
    spool: Spool,
    bell: Arc<Notify>,
    shore: Shore,
    reports: (mpsc::UnboundedSender<Report>, mpsc::UnboundedReceiver<Report>),
    session: Option<Session>,
    said: mpsc::UnboundedReceiver<Said>,
    /// Publishes without a packet id, and with one.
    fresh: VecDeque<Load>,
    numbered: BTreeMap<u16, Load>,
    model: Model,
}

fn origin() -> Origin {
    Origin { site: "site".parse().unwrap(), gateway: "gateway".parse().unwrap() }
}

fn device() -> DeviceId {
    "local-1".parse().unwrap()
}

fn opened(dir: &TempDir) -> Spool {
    Spool::open(&dir.path().join("store"), Limits { free_bytes_min: 0, ..Limits::default() }).unwrap().0
}

fn shore(spool: &Spool, bell: &Arc<Notify>, reports: &mpsc::UnboundedSender<Report>, dir: &TempDir) -> Shore {
    let feed = Feed::new(spool.clone(), Arc::new(Rules::default()), bell.clone());
    Shore::new(origin(), feed, Budget::open(None, dir.path().join("bytes")), reports.clone())
}

impl<'a> World<'a> {
    fn new(runtime: &'a Runtime) -> Self {
        let (dir, bell, reports) = (tempfile::tempdir().unwrap(), Arc::new(Notify::new()), mpsc::unbounded_channel());
        let spool = opened(&dir);
        let shore = shore(&spool, &bell, &reports.0, &dir);
        let (_, said) = mpsc::unbounded_channel();
        let (fresh, numbered, model) = (VecDeque::new(), BTreeMap::new(), Model::default());
        let mut world = Self { runtime, dir, spool, bell, shore, reports, session: None, said, fresh, numbered, model };
        world.connect();
        world
    }

    fn connect(&mut self) {
        let (line, said) = Line::scripted();
        self.said = said;
        let watch = Watch::new(STILL, STILL, Patience::new(STILL), Instant::now());
        self.session = Some(Session::new(line, watch));
        let (version, receive_max) = (Version::Five, Some(RECEIVE_MAX));
        self.hear(Heard::Welcome(Welcome { version, receive_max, packet_bytes_max: None }));
        self.hear(Heard::Subscribed(Ok(())));
        self.hear(Heard::Subscribed(Ok(())));
    }

    fn hear(&mut self, heard: Heard) {
        self.session.as_mut().unwrap().hear(heard, &mut self.shore).unwrap();
    }

    fn lose(&mut self) {
        self.session.take().unwrap().end(&mut self.shore);
        self.shore.down(String::new(), crate::link::Cause::Broken);
        self.fresh.clear();
        self.numbered.clear();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Store(count) => self.store(*count),
            Step::Escalate => {
                self.model.orders += 1;
                let order = ToBridge::Publish(Box::new(escalation(self.model.orders)), past(self.model.orders));
                self.session.as_mut().unwrap().order(order, &mut self.shore).unwrap();
            }
            Step::Number => {
                if let Some(load) = self.fresh.pop_front() {
                    let packet = (1..).find(|packet| !self.numbered.contains_key(packet)).unwrap();
                    self.numbered.insert(packet, load);
                    self.hear(Heard::Sent(packet));
                }
            }
            Step::Answer(at, word) => self.answer(*at, word),
            Step::Stray(packet) => {
                if !self.numbered.contains_key(packet) {
                    self.hear(Heard::Acked(*packet, Ack::Taken));
                }
            }
            Step::Lose => {
                self.lose();
                self.connect();
            }
            Step::Restart => {
                self.lose();
                self.spool.clone().close();
                self.spool = opened(&self.dir);
                self.shore = shore(&self.spool, &self.bell, &self.reports.0, &self.dir);
                self.model.restored.clone_from(&self.model.stored);
                self.connect();
            }
        }
    }

    fn store(&mut self, count: u64) {
        for _ in 0..count {
            self.model.items += 1;
            let (done, answer) = sync_channel(1);
            self.spool.submit(Change::Forward(item(self.model.items)), move |result| done.send(result).unwrap());
            answer.recv().unwrap().unwrap();
            self.model.stored.insert(self.model.items);
        }
        self.bell.notify_one();
    }

    fn answer(&mut self, at: usize, word: &Ack) {
        let Some((packet, load)) = self.numbered.iter().nth(at).map(|(packet, load)| (*packet, *load)) else { return };
        self.numbered.remove(&packet);
        match (load, word) {
            (Load::Item(number), Ack::Taken | Ack::Nobody) => drop(self.model.stored.remove(&number)),
            (Load::Item(number), Ack::Never(_)) => self.model.dead += u64::from(self.model.stored.remove(&number)),
            (Load::Escalation(job), Ack::Taken) => drop(self.model.sent.insert(job)),
            (_, Ack::Later(_)) | (Load::Escalation(_), _) => {}
        }
        self.hear(Heard::Acked(packet, word.clone()));
    }

    /// Until the store, the feed and the session have nothing more to say to each other.
    fn settle(&mut self) {
        loop {
            self.counts();
            let mut told = false;
            while self.is_told() {
                told = true;
            }
            self.session.as_mut().unwrap().pump(&mut self.shore).unwrap();
            if self.listen() == 0 && !told {
                return;
            }
        }
    }

    /// All that was asked of the store before is done when this is.
    fn counts(&self) -> Counts {
        let (done, answer) = sync_channel(1);
        self.spool.counts(move |counts| done.send(counts).unwrap());
        answer.recv().unwrap()
    }

    fn is_told(&mut self) -> bool {
        let feed = &mut self.shore.feed;
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = feed.wait() => true,
                () = std::future::ready(()) => false,
            }
        })
    }

    /// Hears what the session publishes; how much that was.
    fn listen(&mut self) -> usize {
        let mut heard = 0;
        while let Ok(said) = self.said.try_recv() {
            let Said::Publish(parcel) = said else { continue };
            if parcel.delivery == Delivery::Acknowledged {
                let load = self.load(&parcel);
                self.fresh.push_back(load);
                heard += 1;
            }
        }
        let under_way = self.fresh.len() + self.numbered.len();
        assert!(under_way < usize::from(RECEIVE_MAX), "{under_way} under way");
        heard
    }

    fn load(&mut self, parcel: &Parcel) -> Load {
        if !parcel.topic.starts_with("load/") {
            let job = decode_escalation(&parcel.payload).unwrap().job.0;
            let mut user = Vec::new();
            past(job).tell(&mut user);
            assert_eq!(parcel.user, user, "escalation {job}");
            return Load::Escalation(job);
        }
        let number = std::str::from_utf8(&parcel.payload).unwrap().parse().unwrap();
        let again = !self.model.published.insert(number);
        let replayed = parcel.user.contains(&("tidegate-replayed".to_owned(), "true".to_owned()));
        let attempt = parcel.user.iter().any(|(name, _)| name == "tidegate-attempt");
        assert_eq!(replayed, again || self.model.restored.contains(&number), "item {number}");
        assert_eq!(replayed, attempt, "item {number}");
        Load::Item(number)
    }

    fn check(&self) {
        let (done, answer) = sync_channel(1);
        let room = Room { entries_max: u64::MAX, bytes_max: u64::MAX };
        self.spool.page(QueueClass::Telemetry, 0, room, move |found| done.send(found).unwrap());
        let number = |stored| match stored {
            Stored::Forward(record) => std::str::from_utf8(&record.payload).unwrap().parse().unwrap(),
            _ => panic!("another class"),
        };
        let found: BTreeSet<u64> = answer.recv().unwrap().into_iter().map(number).collect();
        assert_eq!(found, self.model.stored);
        assert_eq!(self.counts().dead.entries, self.model.dead);
    }

    /// A link that holds, with a broker that takes everything.
    fn drain(&mut self) {
        self.take(&Step::Lose);
        self.settle();
        while !self.fresh.is_empty() || !self.numbered.is_empty() {
            self.take(&Step::Number);
            self.take(&Step::Answer(0, Ack::Taken));
            self.settle();
        }
        self.lose();
    }

    /// One word for each order.
    fn verdicts(&mut self) {
        let mut words: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        while let Ok(report) = self.reports.1.try_recv() {
            match report {
                Report::Event(Event::EscalationSent { job, .. }) => words.entry(job.0).or_default().push(true),
                Report::Event(Event::EscalationUnsent { job, .. } | Event::EscalationRefused { job, .. }) => {
                    words.entry(job.0).or_default().push(false);
                }
                _ => {}
            }
        }
        let expected = (1..=self.model.orders).map(|job| (job, vec![self.model.sent.contains(&job)]));
        assert_eq!(words, expected.collect());
    }
}

fn item(number: u64) -> ForwardRecord {
    ForwardRecord {
        entry: ForwardId(0),
        source: device(),
        rule: "load".to_owned(),
        topic: "load/sensor".to_owned(),
        payload: number.to_string().into_bytes(),
        retain: false,
        priority: Priority::default(),
        ttl_ms: None,
        stamp: Stamp::now(),
        properties: ForwardProperties::default(),
    }
}

/// Every second escalation has one.
fn past(job: u64) -> Past {
    if job.is_multiple_of(2) { Past { replayed: true, attempt: 1, queued_ms: 1_000 * job } } else { Past::NONE }
}

fn escalation(job: u64) -> Escalation {
    let task = TaskSpec {
        name: "intent".parse().unwrap(),
        sha256: "00".repeat(32),
        system: "intent".to_owned(),
        schema: None,
        max_tokens: 8,
        max_bytes: 64,
    };
    Escalation {
        v: 1,
        job: JobId(job),
        origin: origin(),
        device: device(),
        prompt: Prompt::bare("hello"),
        task,
        draft: None,
        confidence: None,
        reason: Reason::LowConfidence,
        hops: 0,
        attempt: 1,
        expires_in_ms: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 300, ..ProptestConfig::default() })]
    #[test]
    fn an_acknowledgement_ends_its_own_publish_and_nothing_is_lost(
        steps in proptest::collection::vec(steps(), 1..120)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let mut world = World::new(&runtime);
        for step in &steps {
            world.take(step);
            world.settle();
            world.check();
        }
        world.drain();
        prop_assert_eq!(&world.model.stored, &BTreeSet::new());
        prop_assert_eq!(world.counts().telemetry.entries, 0);
        world.verdicts();
    }
}
