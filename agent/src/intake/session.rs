//! One connection of the intake.

use super::settling::{Settled, Settling};
use super::{End, Shore, ToIntake};
use crate::link::{Ack, Backoff, Cause, Delivery, Down, Heard, Incoming, Line, Parcel, Terms, Untaken, Window};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tidegate_broker::{Ephemeral, Kept, Outgoing, Submission, Verdict};
use tidegate_schemas::{CORRELATION_BYTES_MAX, DeviceId, DeviceTopic, JobId, Reply, Topic};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::{info, warn};

/// Outcomes under way at once: the default of most brokers is 20.
const WINDOW_MAX: usize = 16;
/// Outcomes read from the store at once.
const PAGE: usize = 16;
/// Outcomes that wait for the window at most; the others wait in the store.
const READY_MAX: usize = 256;
/// How often outcomes that nobody subscribed are tried again: a device may have come back without a word.
const SCAN_EVERY: Duration = Duration::from_secs(30);
/// Silence on a publish after which the broker counts as dead.
const PUBACK_MAX: Duration = Duration::from_secs(8);

enum What {
    Outcome(DeviceId, JobId),
    Frame,
}

/// Reads of the store that look for outcomes of all devices.
enum Scan {
    /// None is under way; the next one begins at this moment.
    Rest(Instant),
    /// It goes on behind this job when there is room.
    Paused(JobId),
    /// A page is being read.
    Reading(Kept<Vec<(DeviceId, Outgoing)>>),
}

/// One connection and what is under way on it.
pub(super) struct Session {
    line: Line,
    window: Window<What>,
    settling: Settling,
    /// Outcomes that wait for the window.
    ready: VecDeque<(DeviceId, JobId, Bytes)>,
    /// Jobs that are ready or under way, so that none goes twice.
    known: BTreeSet<JobId>,
    scan: Scan,
    granted: usize,
    heard: Instant,
    silence_max: Duration,
}

impl Session {
    /// A session on a connection that is being made.
    pub(super) fn new(line: Line, keep_alive: Duration) -> Self {
        Self {
            line,
            window: Window::new(),
            settling: Settling::default(),
            ready: VecDeque::new(),
            known: BTreeSet::new(),
            scan: Scan::Rest(Instant::now() + SCAN_EVERY),
            granted: 0,
            heard: Instant::now(),
            silence_max: keep_alive * 5 / 2,
        }
    }

    /// Whether prompts and control messages are subscribed.
    pub(super) fn is_up(&self) -> bool {
        self.granted == 2
    }

    /// Works until the connection ends.
    pub(super) async fn run(
        &mut self,
        shore: &mut Shore,
        orders: &mut mpsc::Receiver<ToIntake>,
        backoff: &mut Backoff,
    ) -> End {
        loop {
            let wake = self.wake();
            let was_up = self.is_up();
            let done = tokio::select! {
                heard = self.line.next() => self.hear(heard, shore),
                settled = self.settling.next() => self.settle(settled, shore),
                page = page(&mut self.scan) => { self.found(page); Ok(()) }
                order = orders.recv() => match order {
                    Some(ToIntake::Stop) | None => return End::Stop,
                    Some(order) => self.order(order, shore),
                },
                () = sleep_until(wake.into()) => self.tick(shore),
            };
            if let Err(down) = done.and_then(|()| self.pump(shore)) {
                return End::Lost(down);
            }
            if self.is_up() && !was_up {
                backoff.works();
            }
        }
    }

    fn wake(&self) -> Instant {
        let silent = self.heard + self.silence_max;
        let scan = if let Scan::Rest(at) = self.scan { at } else { silent };
        let look = if self.window.len() > 0 { Instant::now() + Duration::from_secs(1) } else { silent };
        silent.min(scan).min(look)
    }

    fn tick(&mut self, shore: &Shore) -> Result<(), Down> {
        if self.heard.elapsed() >= self.silence_max {
            return Err(Down::broken(format!("the broker was silent for {} s", self.heard.elapsed().as_secs())));
        }
        if self.window.oldest().is_some_and(|wait| wait >= PUBACK_MAX) {
            return Err(Down::broken(format!("a publish was not acknowledged for {} s", PUBACK_MAX.as_secs())));
        }
        if matches!(self.scan, Scan::Rest(at) if at <= Instant::now()) && self.is_up() {
            self.look(None, shore);
        }
        Ok(())
    }

    /// Reads the next page of outcomes of all devices.
    fn look(&mut self, after: Option<JobId>, shore: &Shore) {
        self.scan = Scan::Reading(shore.keeper.waiting(after, PAGE));
    }

    /// A page was read: what is new in it waits for the window; the last page ends the scan.
    fn found(&mut self, page: Vec<(DeviceId, Outgoing)>) {
        let last = page.last().map(|(_, outgoing)| outgoing.job);
        for (device, Outgoing { job, payload, .. }) in page {
            if self.known.insert(job) {
                self.ready.push_back((device, job, payload));
            }
        }
        self.scan = last.map_or_else(|| Scan::Rest(Instant::now() + SCAN_EVERY), Scan::Paused);
    }

    fn order(&mut self, order: ToIntake, shore: &mut Shore) -> Result<(), Down> {
        match order {
            ToIntake::Outcome(device, job, payload) => {
                if self.ready.len() >= READY_MAX {
                    // The store has it; the next scan finds it.
                    return Ok(());
                }
                if self.known.insert(job) {
                    self.ready.push_back((device, job, payload));
                }
                if shore.missed.swap(false, Ordering::Relaxed) {
                    self.look(None, shore);
                }
                Ok(())
            }
            ToIntake::Frame(device, payload, how) => self.frame(&device, payload, how, shore, None),
            ToIntake::State(topic, payload) => {
                let told = if self.is_up() { self.state(&topic, &payload) } else { Ok(()) };
                shore.states.insert(topic, payload);
                told
            }
            ToIntake::Event(topic, payload) => self.publish(Parcel::acknowledged(topic, payload), What::Frame),
            ToIntake::Stop => Ok(()),
        }
    }

    fn hear(&mut self, heard: Heard, shore: &Shore) -> Result<(), Down> {
        match heard {
            Heard::Down(down) => return Err(down),
            Heard::Sent(packet) => {
                self.window.sent(packet);
                return Ok(());
            }
            _ => self.heard = Instant::now(),
        }
        match heard {
            Heard::Welcome(_) => {
                for what in [DeviceTopic::Prompt, DeviceTopic::Control] {
                    let filter = Topic::filter_of_gateway(&shore.origin, what);
                    self.line.subscribe(filter, Delivery::Acknowledged).map_err(down)?;
                }
                Ok(())
            }
            Heard::Subscribed(Err(why)) => Err(Down { why, cause: Cause::Refused }),
            Heard::Subscribed(Ok(())) => self.subscribed(shore),
            Heard::Acked(packet, ack) => {
                self.acked(packet, &ack, shore);
                Ok(())
            }
            Heard::Message(message) => {
                self.arrived(message, shore);
                Ok(())
            }
            Heard::Alive | Heard::Sent(_) | Heard::Down(_) => Ok(()),
        }
    }

    fn subscribed(&mut self, shore: &Shore) -> Result<(), Down> {
        self.granted += 1;
        if !self.is_up() {
            return Ok(());
        }
        info!("connected to the broker of the intake");
        shore.keeper.intake(None);
        self.look(None, shore);
        shore.states.iter().try_for_each(|(topic, payload)| self.state(topic, payload))
    }

    fn acked(&mut self, packet: u16, ack: &Ack, shore: &Shore) {
        let Some(What::Outcome(device, job)) = self.window.acknowledged(packet) else { return };
        self.known.remove(&job);
        match ack {
            Ack::Taken => shore.keeper.released(&device, job),
            // Its device has no session there: the outcome stays until the next scan, or until it is fetched.
            Ack::Nobody => {}
            Ack::Later(reason) | Ack::Never(reason) => {
                warn!(%job, reason, "the broker of the intake did not take an outcome");
            }
        }
    }

    /// A prompt or a control message; everything else is acknowledged in its turn and forgotten.
    fn arrived(&mut self, message: Box<Incoming>, shore: &Shore) {
        let topic = Topic::parse(&message.topic).ok();
        let Some(Topic::Device { origin, what, device }) = topic.filter(|_| !message.retained) else {
            warn!(bytes = message.payload.len(), "dropped a publish that is no prompt: retained, or of another shape");
            let nobody: DeviceId = "nobody".parse().expect("six letters are an identifier");
            return self.settling.push(message, nobody, None);
        };
        let submission = Submission {
            device: device.clone(),
            payload: message.payload.clone(),
            expiry_ms: message.expiry_ms,
            reply: Reply { topic: None, correlation: message.correlation.as_deref().filter(fits).map(<[u8]>::to_vec) },
            traceparent: message.traceparent.clone(),
        };
        let verdict = match what {
            _ if origin != shore.origin => None,
            DeviceTopic::Prompt => Some(shore.keeper.prompt(submission)),
            DeviceTopic::Control => Some(shore.keeper.control(submission)),
            DeviceTopic::Answer | DeviceTopic::Escalate | DeviceTopic::Resolve => None,
        };
        self.settling.push(message, device, verdict);
    }

    /// Its fate is known: the frame first, then the acknowledgement.
    fn settle(&mut self, settled: Settled, shore: &Shore) -> Result<(), Down> {
        let Settled { message, device, correlation, verdict } = settled;
        match verdict {
            Some(Verdict::Kept { frame: Some(frame) }) => {
                self.frame(&device, frame, Ephemeral::Lossy, shore, correlation)?;
            }
            Some(Verdict::Refused { frame, .. }) => {
                self.frame(&device, frame, Ephemeral::Provisional, shore, correlation)?;
            }
            Some(Verdict::Kept { frame: None }) | None => {}
        }
        self.line.acknowledge(&message).map_err(down)
    }

    fn frame(
        &mut self,
        device: &DeviceId,
        payload: Bytes,
        how: Ephemeral,
        shore: &Shore,
        correlation: Option<Bytes>,
    ) -> Result<(), Down> {
        let topic = Topic::device(&shore.origin, DeviceTopic::Answer, device).name();
        let delivery = if how == Ephemeral::Lossy { Delivery::Once } else { Delivery::Acknowledged };
        let parcel = Parcel { delivery, correlation, ..Parcel::acknowledged(topic, payload) };
        match how {
            // What a full client does not take is what may be lost first.
            Ephemeral::Lossy => self.line.publish(parcel).or(Ok(())),
            Ephemeral::Provisional | Ephemeral::Outcome => self.publish(parcel, What::Frame),
        }
    }

    fn state(&self, topic: &str, payload: &Bytes) -> Result<(), Down> {
        self.line.publish(Parcel::state(topic.to_owned(), payload.clone())).map_err(down)
    }

    fn publish(&mut self, parcel: Parcel, what: What) -> Result<(), Down> {
        self.line.publish(parcel).map_err(down)?;
        self.window.requested(what);
        Ok(())
    }

    /// Publishes the outcomes that fit.
    fn pump(&mut self, shore: &Shore) -> Result<(), Down> {
        while self.is_up() && self.window.len() < WINDOW_MAX {
            let Some((device, job, payload)) = self.ready.pop_front() else { break };
            let topic = Topic::device(&shore.origin, DeviceTopic::Answer, &device).name();
            self.publish(Parcel::acknowledged(topic, payload), What::Outcome(device, job))?;
        }
        if let Scan::Paused(after) = self.scan
            && self.ready.len() < PAGE
        {
            self.look(Some(after), shore);
        }
        Ok(())
    }

    /// Says that we go, and waits until it is on its way.
    pub(super) async fn goodbye(&mut self, terms: &Terms, most: Duration) {
        let told = terms.will.iter().all(|(topic, payload)| self.state(topic, payload).is_ok());
        if !self.is_up() || !told || self.line.disconnect().is_err() {
            return;
        }
        let over = async { while !matches!(self.line.next().await, Heard::Down(_)) {} };
        let _ = tokio::time::timeout(most, over).await;
    }
}

/// The page that is being read; for ever while none is. Safe to drop.
async fn page(scan: &mut Scan) -> Vec<(DeviceId, Outgoing)> {
    match scan {
        Scan::Rest(_) | Scan::Paused(_) => std::future::pending().await,
        Scan::Reading(page) => page.as_mut().await,
    }
}

/// Whether Correlation Data are short enough to be kept with the prompt; longer ones come back with what is said at once.
fn fits(correlation: &&[u8]) -> bool {
    correlation.len() <= CORRELATION_BYTES_MAX
}

fn down(untaken: Untaken) -> Down {
    Down::broken(untaken.to_string())
}
