//! One connection after its CONNECT: one task that reads, decides, writes.
//!
//! Invariants: acknowledgements go out in the order of the publishes; whatever waits for the client is bounded in bytes,
//! whatever waits for the keeper in number; the session is given back to the hall exactly once, at the end.

mod answers;
mod asked;
mod batch;
mod end;
mod general;
pub(crate) mod publish;
mod ramp;
mod resume;
mod subscribe;

use crate::codec::{Packet, Properties, QoS, Version, Will, decode, encode_within, reason};
use crate::hall::{ConnId, Mail, Note, Notice};
use crate::keeper::Outgoing;
use crate::meter::Usage;
use crate::rights::Principal;
use crate::session::Session;
use crate::shared::Shared;
use crate::stats::count;
use bytes::BytesMut;
use end::{End, write};
use futures_util::FutureExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use general::{Arrival, General};
use publish::Settled;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate_schemas::DeviceId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

/// Room for one read, in bytes: a small prompt and its topic.
const READ_BYTES: usize = 1024;
/// The same for a client that fills it each time.
const READ_BYTES_MAX: usize = 16 * 1024;
/// A read buffer above this is given back when it is empty.
const BUFFER_KEEP_BYTES: usize = 4 * 1024;
/// Pause while the disk is behind with what everybody sent: about one group of changes.
const DISK_PAUSE: Duration = Duration::from_millis(20);
/// A client is cut for the sake of all only if so many bytes wait for it.
const OUTGOING_SPARED_BYTES: usize = 64 * 1024;
/// Without keep-alive the clock is still looked at so often.
const NO_KEEP_ALIVE: Duration = Duration::from_secs(24 * 3600);

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Pulled = (DeviceId, usize, Vec<Outgoing>);

/// What the client said about itself in CONNECT.
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) principal: Principal,
    pub(crate) peer: SocketAddr,
    pub(crate) version: Version,
    pub(crate) keep_alive: Duration,
    /// How much it takes unacknowledged.
    pub(crate) receive_max: usize,
    pub(crate) packet_bytes_max: usize,
    pub(crate) will: Option<Will>,
    pub(crate) present: bool,
    /// Whether it wants reason strings.
    pub(crate) wants_reasons: bool,
}

/// What the hall gave.
pub(crate) struct Place {
    pub(crate) conn: ConnId,
    pub(crate) session: Session,
    pub(crate) notes: mpsc::Receiver<Note>,
    pub(crate) notice: oneshot::Receiver<Notice>,
    pub(crate) stale: Arc<AtomicBool>,
    pub(crate) usage: Usage,
}

/// A frame that waits for room in the client's window.
struct Waiting {
    qos: QoS,
    topic: String,
    payload: bytes::Bytes,
    properties: Option<Box<Properties>>,
    what: crate::session::What,
}

pub(crate) struct Connection {
    shared: Arc<Shared>,
    client: Client,
    conn: ConnId,
    session: Session,
    notes: mpsc::Receiver<Note>,
    notice: oneshot::Receiver<Notice>,
    stale: Arc<AtomicBool>,
    incoming: BytesMut,
    out: BytesMut,
    flushed: bool,
    settling: FuturesOrdered<Later<Settled>>,
    pulls: FuturesUnordered<Later<Pulled>>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// What of both is counted in the door's total.
    counted: u64,
    general: General,
    usage: Usage,
    /// Until when a rate or the disk keeps the client from being read.
    paused: Option<Instant>,
    /// Whether it was not read; then it was not silent either.
    unread: bool,
    aliases: HashMap<u16, String>,
    /// The last general topic that rumqttd was found to know.
    last_topic: String,
    heard: Instant,
    /// Room for the next read, in bytes.
    appetite: usize,
    /// Wakes it; set anew only when it is to wake earlier, since most waits end before.
    timer: Pin<Box<Sleep>>,
}

/// What ended a wait.
enum Happening {
    Read(io::Result<usize>),
    Written(io::Result<()>),
    Note(Option<Note>),
    Notice(Notice),
    Settled(Settled),
    Pulled(Pulled),
    Arrival(Arrival),
    Silence,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        client: Client,
        place: Place,
        incoming: BytesMut,
        out: BytesMut,
    ) -> Box<Self> {
        let Place { conn, mut session, notes, notice, stale, usage } = place;
        let upstream = std::mem::take(&mut session.upstream);
        let hello = resume::hello(shared.backend.kind, &client, &session);
        let general = General::new(&shared.backend, hello, upstream, shared.limits.backend_bytes_max);
        Box::new(Self {
            shared,
            client,
            conn,
            session,
            notes,
            notice,
            stale,
            incoming,
            out,
            flushed: false,
            settling: FuturesOrdered::new(),
            pulls: FuturesUnordered::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            counted: 0,
            general,
            usage,
            paused: None,
            unread: false,
            aliases: HashMap::new(),
            last_topic: String::new(),
            heard: Instant::now(),
            appetite: READ_BYTES,
            timer: Box::pin(sleep_until(Instant::now() + NO_KEEP_ALIVE)),
        })
    }

    /// Serves the client until it or the door ends the connection. Boxed, and with its two halves of the stream: a
    /// future holds its arguments beside what it moved out of them.
    pub(crate) async fn run<R, W>(mut self: Box<Self>, mut reader: R, mut writer: W)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.resume();
        let end = loop {
            if let Err(end) = self.work() {
                break end;
            }
            let happening = self.wait(&mut reader, &mut writer).await;
            if let Err(end) = self.happened(happening) {
                break end;
            }
        };
        Box::pin(self.finish(end, &mut writer)).await;
    }

    /// Does what can be done without waiting.
    fn work(&mut self) -> Result<(), End> {
        self.take_packets()?;
        while self.catch_up()? {
            self.take_packets()?;
        }
        if self.incoming.is_empty() && self.incoming.capacity() > BUFFER_KEEP_BYTES {
            self.incoming = BytesMut::new();
        }
        if self.stale.swap(false, Ordering::Relaxed) {
            self.session.feeds.look_again_everywhere();
            self.rights_changed()?;
        }
        self.send_waiting()?;
        self.start_pulls();
        self.count_outgoing()
    }

    /// Takes a packet from the rates of the client, its identity, its address and everybody.
    fn charge(&mut self, packet: &Packet, bytes: usize) {
        let asks = matches!(packet, Packet::Publish(_) | Packet::Subscribe { .. } | Packet::Unsubscribe { .. });
        let wait = self.shared.meters.take(&self.usage, u64::from(asks), bytes as u64);
        if wait.is_zero() {
            return;
        }
        if self.paused.is_none() {
            count(&self.shared.counters.throttled);
        }
        self.paused = Some(self.heard + wait);
    }

    /// Tells the door's total what waits for this client.
    fn count_outgoing(&mut self) -> Result<(), End> {
        let now = self.out.len() + self.waiting_bytes;
        if now == 0 && self.counted == 0 {
            return Ok(());
        }
        let total = &self.shared.meters.outgoing_bytes;
        let others = total.fetch_sub(self.counted, Ordering::Relaxed).saturating_sub(self.counted);
        total.fetch_add(now as u64, Ordering::Relaxed);
        self.counted = now as u64;
        let over = others + self.counted > self.shared.limits.outgoing_total_bytes_max;
        if over && now > OUTGOING_SPARED_BYTES { Err(End::slow()) } else { Ok(()) }
    }

    /// Takes the packets that have arrived, as far as there is room for them.
    fn take_packets(&mut self) -> Result<(), End> {
        while self.may_read() {
            let (bytes_max, before) = (self.shared.limits.packet_bytes_max, self.incoming.len());
            let packet = decode(&mut self.incoming, self.client.version, bytes_max).map_err(End::from)?;
            let Some(packet) = packet else { break };
            self.heard = Instant::now();
            self.charge(&packet, before - self.incoming.len());
            self.take(packet)?;
        }
        Ok(())
    }

    fn may_read(&self) -> bool {
        self.paused.is_none_or(|until| until <= Instant::now())
            && !self.disk_is_behind()
            && self.settling.len() < usize::from(self.shared.limits.receive_max)
            && self.general.waiting_bytes() < self.shared.limits.backend_bytes_max
    }

    /// Whether prompts of everybody wait for the disk that are more than it should be.
    fn disk_is_behind(&self) -> bool {
        self.shared.meters.waiting_bytes.load(Ordering::Relaxed) > self.shared.limits.waiting_total_bytes_max
    }

    async fn wait<R, W>(&mut self, reader: &mut R, writer: &mut W) -> Happening
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.disk_is_behind() {
            self.paused = Some(Instant::now() + DISK_PAUSE);
        }
        let may_read = self.may_read();
        if may_read {
            self.paused = None;
            if std::mem::take(&mut self.unread) {
                self.heard = Instant::now();
            }
        }
        self.unread |= !may_read;
        let wake = self.paused.map_or(self.silent_at(), |until| until.min(self.silent_at()));
        let unwritten = !self.out.is_empty() || !self.flushed;
        self.incoming.reserve(self.appetite);
        let appetite = self.general_appetite();
        if self.timer.is_elapsed() || self.timer.deadline() > wake {
            self.timer.as_mut().reset(wake);
        }
        tokio::select! {
            read = reader.read_buf(&mut self.incoming), if may_read => Happening::Read(read),
            written = write(writer, &mut self.out), if unwritten => Happening::Written(written),
            note = self.notes.recv() => Happening::Note(note),
            Ok(notice) = &mut self.notice => Happening::Notice(notice),
            Some(settled) = self.settling.next(), if !self.settling.is_empty() => Happening::Settled(settled),
            Some(pulled) = self.pulls.next(), if !self.pulls.is_empty() => Happening::Pulled(pulled),
            arrival = self.general.turn(appetite) => Happening::Arrival(arrival),
            () = self.timer.as_mut() => Happening::Silence,
        }
    }

    fn happened(&mut self, happening: Happening) -> Result<(), End> {
        match happening {
            Happening::Read(Ok(0) | Err(_)) | Happening::Written(Err(_)) | Happening::Note(None) => Err(End::Closed),
            Happening::Read(Ok(bytes)) => {
                // What came at once comes at once again; one who says little keeps little.
                let wanted = if bytes >= self.appetite { self.appetite * 4 } else { bytes.next_power_of_two() };
                self.appetite = wanted.clamp(READ_BYTES, READ_BYTES_MAX);
                Ok(())
            }
            Happening::Written(Ok(())) => {
                self.flushed = true;
                Ok(())
            }
            Happening::Note(Some(note)) => {
                // What a publish led to comes after the word about the publish itself.
                while let Some(Some(settled)) = self.settling.next().now_or_never() {
                    self.settle(settled)?;
                }
                self.note(note)
            }
            Happening::Notice(notice) => Err(notice.into()),
            Happening::Settled(settled) => self.settle(settled),
            Happening::Pulled(pulled) => self.pulled(pulled),
            Happening::Arrival(Arrival::Publish(publish)) => {
                self.count_lost();
                self.forward_out(*publish)
            }
            Happening::Arrival(Arrival::Acks(acks)) => acks.iter().try_for_each(|ack| self.send(ack)),
            Happening::Arrival(Arrival::Forgot(acks)) => {
                self.backend_forgot();
                acks.iter().try_for_each(|ack| self.send(ack))
            }
            Happening::Arrival(Arrival::Nothing) => Ok(()),
            Happening::Silence if self.silent_at() <= Instant::now() => Err(End::silent()),
            Happening::Silence => Ok(()),
        }
    }

    /// When the client is gone by its own word: one and a half times the keep-alive (MQTT 5.0, 3.1.2.10). A client that
    /// is not read because the disk is slow is not blamed for it.
    fn silent_at(&self) -> Instant {
        match self.client.keep_alive {
            Duration::ZERO => Instant::now() + NO_KEEP_ALIVE,
            keep_alive if self.may_read() => self.heard + keep_alive * 3 / 2,
            keep_alive => Instant::now() + keep_alive,
        }
    }

    fn take(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.publish(*publish),
            Packet::PubAck(ack) => self.acknowledged(ack),
            Packet::PubRec(ack) => self.received(ack),
            Packet::PubComp(ack) => self.completed(ack.id),
            Packet::PubRel(ack) => self.release(ack.id),
            Packet::Subscribe { id, filters, properties } => self.subscribe(id, filters, &properties),
            Packet::Unsubscribe { id, filters } => self.unsubscribe(id, filters),
            Packet::PingReq => self.send(&Packet::PingResp),
            Packet::Disconnect { reason, properties } => Err(self.goodbye(reason, &properties)),
            Packet::Connect(_) => Err(End::protocol("second CONNECT")),
            Packet::Auth => Err(End::protocol("AUTH without an authentication method")),
            Packet::ConnAck(_) | Packet::SubAck { .. } | Packet::UnsubAck { .. } | Packet::PingResp => {
                Err(End::protocol("packet that only a server sends"))
            }
        }
    }

    /// Appends a packet to what the client has to read.
    fn send(&mut self, packet: &Packet) -> Result<(), End> {
        if !encode_within(packet, self.client.version, self.client.packet_bytes_max, &mut self.out) {
            return Err(End::Refused(reason::TOO_LARGE, "a packet for the client is over its maximum packet size"));
        }
        self.flushed = false;
        let max = self.shared.limits.outgoing_bytes_max;
        if self.out.len() > max { Err(End::slow()) } else { Ok(()) }
    }

    /// Whether the client is so far behind that lossy frames are dropped and outcomes wait on the disk.
    fn is_slow(&self) -> bool {
        self.out.len() > self.shared.limits.outgoing_bytes_max / 2
    }

    fn tell_hall(&self, mail: Mail) -> bool {
        self.shared.hall.try_send(mail).is_ok()
    }
}
