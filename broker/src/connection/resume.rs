//! How a connection begins: what an earlier one left unfinished goes out again, and the backend is told who it is.

use super::{Client, Connection, answers, subscribe};
use crate::backend::client_name;
use crate::codec::{Ack, Packet, Publish, Version};
use crate::link::{Hello, Kind, Memory};
use crate::session::Session;

impl Connection {
    pub(super) fn resume(&mut self) {
        self.session.feeds.resumed();
        self.drop_what_does_not_fit();
        let sent: Vec<_> = self.session.inflight.iter().cloned().collect();
        for sent in sent {
            let packet = if sent.released {
                Packet::PubRel(Ack::success(sent.id))
            } else {
                Packet::Publish(Box::new(Publish { dup: true, ..answers::publish(&sent) }))
            };
            if self.send(&packet).is_err() {
                break;
            }
        }
        self.shared.meters.subscribed(&mut self.usage, self.session.filters.len());
        let kind = self.shared.backend.kind;
        if self.client.present && self.session.remembered && (self.session.forwards() || kind == Kind::Whole) {
            self.general.resume(subscribe::forwarded(kind, &self.session));
        }
    }
}

/// Who this client is to the backend.
pub(super) fn hello(kind: Kind, client: &Client, session: &Session) -> Hello {
    let version = match kind {
        Kind::Rumqttd => Version::V4,
        Kind::Whole => client.version,
    };
    Hello {
        client_id: client_name(kind, session.slot, &client.client_id),
        version,
        memory: memory(session),
        expiry_s: u32::try_from(session.expiry.as_secs()).unwrap_or(u32::MAX),
        receive_max: u16::try_from(client.receive_max).unwrap_or(u16::MAX).max(1),
        packet_bytes_max: u32::try_from(client.packet_bytes_max).unwrap_or(u32::MAX),
    }
}

/// What the backend is to remember of a session.
fn memory(session: &Session) -> Memory {
    match (session.expiry.is_zero(), session.remembered) {
        (true, _) => Memory::None,
        (false, false) => Memory::Fresh,
        (false, true) => Memory::Resume,
    }
}
