//! Subscriptions that the backend is to know, and the client's SUBSCRIBEs and UNSUBSCRIBEs that wait for its word.
//!
//! Invariant: each is answered exactly once, also when the backend was replaced meanwhile.

use crate::codec::{Filter, Packet, Properties};

/// A SUBSCRIBE of the client.
pub(super) struct Asked {
    pub(super) client_id: u16,
    /// What the backend is asked.
    pub(super) filters: Vec<Filter>,
    pub(super) properties: Properties,
    /// The reason codes for the client.
    pub(super) codes: Vec<u8>,
    /// Which of the codes are the backend's to say; empty takes all as they are.
    pub(super) backends: Vec<usize>,
}

/// Wanted of the backend, and not answered.
#[allow(clippy::large_enum_variant, reason = "a client has one or two open, for milliseconds")]
enum Open {
    Subscribe { link_id: u16, asked: Asked },
    Unsubscribe { waits: Vec<(u16, String)>, client_id: u16, codes: Vec<u8> },
}

#[derive(Default)]
pub(super) struct Questions {
    /// What the backend is to know, for when it forgot: filters with their subscription identifiers.
    known: Vec<(Filter, Option<u32>)>,
    open: Vec<Open>,
}

fn subscribe_packet(link_id: u16, asked: &Asked) -> Packet {
    let (filters, properties) = (asked.filters.clone(), Box::new(asked.properties.clone()));
    Packet::Subscribe { id: link_id, filters, properties }
}

fn unsubscribe_packet(link_id: u16, filter: &str) -> Packet {
    Packet::Unsubscribe { id: link_id, filters: vec![filter.to_owned()] }
}

impl Questions {
    pub(super) fn knows(&mut self, filters: Vec<(Filter, Option<u32>)>) {
        self.known = filters;
    }

    /// Whether something waits for the backend's word.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether a packet id is taken.
    pub(super) fn has(&self, id: u16) -> bool {
        self.open.iter().any(|open| match open {
            Open::Subscribe { link_id, .. } => *link_id == id,
            Open::Unsubscribe { waits, .. } => waits.iter().any(|(wait, _)| *wait == id),
        })
    }

    pub(super) fn subscribe(&mut self, link_id: u16, asked: Asked) -> Packet {
        self.known.retain(|(known, _)| asked.filters.iter().all(|new| new.filter != known.filter));
        let id = asked.properties.subscription_ids.first().copied();
        self.known.extend(asked.filters.iter().map(|filter| (filter.clone(), id)));
        let packet = subscribe_packet(link_id, &asked);
        self.open.push(Open::Subscribe { link_id, asked });
        packet
    }

    pub(super) fn unsubscribe(&mut self, client_id: u16, waits: Vec<(u16, String)>, codes: Vec<u8>) -> Vec<Packet> {
        self.known.retain(|(known, _)| waits.iter().all(|(_, filter)| *filter != known.filter));
        let packets = waits.iter().map(|(id, filter)| unsubscribe_packet(*id, filter)).collect();
        self.open.push(Open::Unsubscribe { waits, client_id, codes });
        packets
    }

    /// The backend's SUBACK or UNSUBACK; what the client is told.
    pub(super) fn answered(&mut self, id: u16, granted: &[u8]) -> Vec<Packet> {
        let mut due = Vec::new();
        self.open.retain_mut(|open| match open {
            Open::Subscribe { link_id, asked } if *link_id == id => {
                for (place, code) in asked.backends.iter().zip(granted) {
                    asked.codes[*place] = *code;
                }
                due.push(Packet::SubAck { id: asked.client_id, codes: std::mem::take(&mut asked.codes) });
                false
            }
            Open::Subscribe { .. } => true,
            Open::Unsubscribe { waits, client_id, codes } => {
                waits.retain(|(wait, _)| *wait != id);
                if waits.is_empty() {
                    due.push(Packet::UnsubAck { id: *client_id, codes: std::mem::take(codes) });
                }
                !waits.is_empty()
            }
        });
        due
    }

    /// The connection broke and the backend remembers: what was not answered is asked again.
    pub(super) fn repeat(&self, push: &mut dyn FnMut(&Packet)) {
        for open in &self.open {
            match open {
                Open::Subscribe { link_id, asked } => push(&subscribe_packet(*link_id, asked)),
                Open::Unsubscribe { waits, .. } => {
                    waits.iter().for_each(|(id, filter)| push(&unsubscribe_packet(*id, filter)));
                }
            }
        }
    }

    /// The backend has forgotten all: it is told anew, under `id` where nobody waits for the word. Returns the UNSUBACKs
    /// that need no word any more.
    pub(super) fn again(&mut self, id: u16, push: &mut dyn FnMut(&Packet)) -> Vec<Packet> {
        let asked = |filter: &Filter| {
            self.open.iter().any(|open| match open {
                Open::Subscribe { asked, .. } => asked.filters.iter().any(|f| f.filter == filter.filter),
                Open::Unsubscribe { .. } => false,
            })
        };
        let mut rest: Vec<_> = self.known.iter().filter(|(filter, _)| !asked(filter)).cloned().collect();
        while let Some((_, identifier)) = rest.first() {
            let identifier = *identifier;
            let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, other)| *other == identifier);
            rest = others;
            let filters = same.into_iter().map(|(filter, _)| filter).collect();
            let subscription_ids = identifier.into_iter().collect();
            let properties = Box::new(Properties { subscription_ids, ..Properties::default() });
            push(&Packet::Subscribe { id, filters, properties });
        }
        let mut due = Vec::new();
        self.open.retain_mut(|open| match open {
            Open::Subscribe { link_id, asked } => {
                push(&subscribe_packet(*link_id, asked));
                true
            }
            Open::Unsubscribe { waits, client_id, codes } => {
                waits.iter().for_each(|(id, filter)| push(&unsubscribe_packet(*id, filter)));
                due.push(Packet::UnsubAck { id: *client_id, codes: std::mem::take(codes) });
                false
            }
        });
        due
    }
}
