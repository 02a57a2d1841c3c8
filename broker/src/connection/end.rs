//! How a connection ends: why, what the client is told, what becomes of will and session.

use super::{BUFFER_KEEP_BYTES, Connection};
use crate::codec::{Malformed, Packet, Properties, QoS, Version, encode_within, reason};
use crate::hall::{Detach, Mail, Notice};
use crate::link::{Appetite, Kind};
use bytes::BytesMut;
use futures_util::stream::StreamExt;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a client may take to read its last packets.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long publishes that are with the keeper are waited for, so that a QoS 2 packet id is not lost.
const SETTLE: Duration = Duration::from_secs(5);

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client said goodbye.
    Goodbye,
    /// It said goodbye and wants its will published.
    GoodbyeWithWill,
    /// The network ended it.
    Closed,
    /// The door ends it: reason code and fact.
    Refused(u8, &'static str),
    Shutdown,
}

impl From<Malformed> for End {
    fn from(bad: Malformed) -> Self {
        Self::Refused(bad.reason, bad.what)
    }
}

impl From<Notice> for End {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::TakenOver => Self::Refused(reason::TAKEN_OVER, "another connection took the session over"),
            Notice::Shutdown => Self::Shutdown,
        }
    }
}

impl End {
    pub(super) fn protocol(what: &'static str) -> Self {
        Self::Refused(reason::PROTOCOL, what)
    }

    pub(super) fn silent() -> Self {
        Self::Refused(reason::KEEP_ALIVE, "nothing was heard for one and a half times the keep-alive")
    }

    pub(super) fn slow() -> Self {
        Self::Refused(reason::QUOTA, "the client reads too slowly, the queue for it is full")
    }

    fn publishes_will(self) -> bool {
        matches!(self, Self::GoodbyeWithWill | Self::Closed | Self::Refused(..))
    }

    fn words(self) -> Option<(u8, &'static str)> {
        match self {
            Self::Refused(code, what) => Some((code, what)),
            Self::Shutdown => Some((reason::SHUTTING_DOWN, "the gateway shuts down")),
            Self::Goodbye | Self::GoodbyeWithWill | Self::Closed => None,
        }
    }
}

impl Connection {
    pub(super) fn goodbye(&mut self, code: u8, properties: &Properties) -> End {
        if let Some(seconds) = properties.session_expiry_s {
            if self.session.expiry.is_zero() && seconds != 0 {
                return End::protocol("session expiry was 0 and cannot be set at the end");
            }
            self.session.expiry = self.shared.limits.expiry(seconds);
        }
        if code == reason::DISCONNECT_WITH_WILL { End::GoodbyeWithWill } else { End::Goodbye }
    }

    /// Says why, settles what is with the keeper, lets go of rumqttd, gives the session back.
    pub(super) async fn finish<W: AsyncWrite + Unpin>(mut self, end: End, writer: &mut W) {
        self.log(end);
        if let (Version::V5, Some((code, what))) = (self.client.version, end.words()) {
            let properties = Properties { reason_string: Some(what.to_owned()), ..Properties::default() };
            let packet = Packet::Disconnect { reason: code, properties: Box::new(properties) };
            encode_within(&packet, Version::V5, self.client.packet_bytes_max, &mut self.out);
        }
        if end != End::Closed {
            // The client may be gone; it had its chance.
            let _ = timeout(LAST_WORDS, async { (write(writer, &mut self.out).await, writer.shutdown().await) }).await;
        }
        self.settle_rest().await;
        let will = if end.publishes_will() { self.client.will.take() } else { None };
        if self.shared.backend.kind == Kind::Rumqttd {
            // rumqttd sends them again with other packet ids.
            self.session.inflight.retain(|sent| !matches!(sent.what, crate::session::What::General { .. }));
        }
        self.session.remembered |= self.general.is_used();
        let expiry_s = u32::try_from(self.session.expiry.as_secs()).unwrap_or(u32::MAX);
        self.session.upstream = self.general.close(expiry_s).await;
        self.shared.meters.outgoing_bytes.fetch_sub(self.counted, Ordering::Relaxed);
        // Whoever takes the session over needs this place.
        drop(self.usage);
        let detach = Detach { conn: self.conn, session: self.session, will };
        if self.shared.hall.send(Mail::Detach(Box::new(detach))).await.is_err() {
            tracing::debug!("the hall closed before a session came back");
        }
    }

    async fn settle_rest(&mut self) {
        let Self { session, settling, general, .. } = self;
        let all = async {
            loop {
                let settled = tokio::select! {
                    settled = settling.next() => settled,
                    // What the backend sends now stays unacknowledged, and comes again to a session that lives on.
                    _ = general.turn(Appetite::Full) => continue,
                };
                let Some(settled) = settled else { return };
                if settled.is_taken() && settled.qos == QoS::ExactlyOnce {
                    session.received.insert(settled.id);
                }
            }
        };
        if timeout(SETTLE, all).await.is_err() {
            tracing::warn!(peer = %self.client.peer, "publishes were not settled in time, the client sends them again");
        }
    }

    fn log(&self, end: End) {
        let (client, peer, who) = (&self.client.client_id, self.client.peer, &self.client.principal);
        match end {
            End::Refused(code, what) => {
                tracing::warn!(%who, %peer, ?client, code = format_args!("0x{code:02x}"), what, "connection ended");
            }
            _ => tracing::debug!(%who, %peer, ?client, ?end, "connection ended"),
        }
    }
}

/// Writes all and flushes. May be dropped at any await without loss.
pub(super) async fn write<W: AsyncWrite + Unpin>(writer: &mut W, out: &mut BytesMut) -> io::Result<()> {
    while !out.is_empty() {
        writer.write_buf(out).await?;
    }
    if out.capacity() > BUFFER_KEEP_BYTES {
        *out = BytesMut::new();
    }
    writer.flush().await
}
