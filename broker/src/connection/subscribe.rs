//! Subscriptions: to answers here, to everything else in the backend.

use super::asked::Asked;
use super::{Connection, End};
use crate::backend::Name;
use crate::codec::{Filter, Packet, Properties, QoS, Version, reason};
use crate::hall::Mail;
use crate::link::Kind;
use crate::rights::{Grant, Reach};
use crate::session::{Session, Subscription};
use crate::stats::count;
use crate::topic;

/// SUBACK failure of 3.1.1, the only one it has.
const FAILURE: u8 = 0x80;
const SHARED: &str = "$share/";
/// The No Local option (MQTT 5.0, 3.8.3.1).
const NO_LOCAL: u8 = 4;

/// The filters of a session that the backend has to know.
pub(super) fn forwarded(kind: Kind, session: &Session) -> Vec<(Filter, Option<u32>)> {
    session.filters.iter().filter(|s| s.forward).map(|s| (wire(kind, s), s.id)).collect()
}

fn wire(kind: Kind, subscription: &Subscription) -> Filter {
    match kind {
        Kind::Rumqttd => Filter { qos: subscription.qos, options: 0, ..subscription.asked.clone() },
        Kind::Whole => subscription.asked.clone(),
    }
}

/// The group and the filter of a shared subscription (MQTT 5.0, 4.8.2).
fn shared(filter: &str) -> Option<Result<&str, u8>> {
    let rest = filter.strip_prefix(SHARED)?;
    Some(match rest.split_once('/') {
        Some((group, inner)) if !group.is_empty() && !group.contains(['+', '#']) => Ok(inner),
        _ => Err(reason::FILTER_INVALID),
    })
}

impl Connection {
    pub(super) fn subscribe(&mut self, id: u16, filters: Vec<Filter>, properties: &Properties) -> Result<(), End> {
        let identifier = match properties.subscription_ids[..] {
            [] => None,
            [one] => Some(one),
            _ => return Err(End::protocol("SUBSCRIBE has more than one subscription identifier")),
        };
        if identifier.is_some() && self.shared.backend.address.borrow().announced.subscription_ids_available == Some(0)
        {
            return Err(End::Refused(reason::SUBSCRIPTION_ID, "subscription identifiers are not available"));
        }
        let kind = self.shared.backend.kind;
        let (mut codes, mut forward, mut places) = (Vec::with_capacity(filters.len()), Vec::new(), Vec::new());
        for filter in filters {
            if filter.options & NO_LOCAL != 0 && filter.filter.starts_with(SHARED) {
                return Err(End::protocol("a shared subscription has the No Local option"));
            }
            match self.subscribe_one(filter, identifier) {
                Ok(subscription) => {
                    if subscription.forward {
                        forward.push(wire(kind, &subscription));
                        places.push(codes.len());
                    }
                    codes.push(subscription.qos as u8);
                }
                Err(code) => {
                    count(&self.shared.counters.refused);
                    codes.push(if self.is_v5() { code } else { FAILURE });
                }
            }
        }
        self.tell_reaches()?;
        if forward.is_empty() {
            return self.send(&Packet::SubAck { id, codes });
        }
        let properties = match kind {
            Kind::Rumqttd => Properties::default(),
            Kind::Whole => properties.clone(),
        };
        let backends = if kind == Kind::Whole { places } else { Vec::new() };
        self.general.subscribe(Asked { client_id: id, filters: forward, properties, codes, backends });
        Ok(())
    }

    /// What a filter gives this client by the rights that hold now.
    fn granted(&self, filter: &str) -> Result<Grant, u8> {
        let shared = shared(filter).transpose()?;
        let inner = shared.unwrap_or(filter);
        topic::check_filter(inner, self.shared.topics()).map_err(|_| reason::FILTER_INVALID)?;
        let rights = self.shared.rights.borrow();
        let grant = self.client.principal.grant(self.shared.reading(&rights, &self.client.client_id), inner)?;
        if shared.is_none() {
            return Ok(grant);
        }
        // Answers belong to a device, not to a group.
        if grant.forward {
            Ok(Grant { reach: None, replies: false, forward: true })
        } else {
            Err(reason::SHARED_UNSUPPORTED)
        }
    }

    fn subscribe_one(&mut self, asked: Filter, id: Option<u32>) -> Result<Subscription, u8> {
        let kind = self.shared.backend.kind;
        let announced = self.shared.backend.address.borrow().announced.clone();
        if asked.filter.starts_with(SHARED) && (kind == Kind::Rumqttd || announced.shared_available == Some(0)) {
            return Err(reason::SHARED_UNSUPPORTED);
        }
        let Grant { reach, replies, forward } = self.granted(&asked.filter)?;
        if forward && kind == Kind::Rumqttd {
            let brought = self.usage.brought();
            if !self.shared.backend.seen.admit(Name::Filter, &asked.filter, brought) {
                tracing::warn!(who = %self.client.principal, peer = %self.client.peer, "a new filter is over the bound");
                return Err(reason::QUOTA);
            }
        }
        let before = self.session.unsubscribe(&asked.filter);
        let filters = self.session.filters.len() + 1;
        let room = filters <= self.shared.limits.subscriptions_max;
        if before.is_none() && (!room || !self.shared.meters.subscribed(&mut self.usage, filters)) {
            self.shared.meters.subscribed(&mut self.usage, filters - 1);
            return Err(reason::QUOTA);
        }
        let qos = if forward && kind == Kind::Whole { asked.qos } else { asked.qos.min(QoS::AtLeastOnce) };
        let own = if replies { self.client.principal.device() } else { None };
        let named = if let Some(Reach::One(device)) = &reach { Some(device.clone()) } else { own };
        named.into_iter().for_each(|device| self.session.feeds.listen_again(&device));
        let subscription = Subscription { asked, qos, reach, replies, forward, id };
        self.session.filters.push(subscription.clone());
        Ok(subscription)
    }

    /// The hall hears of every change; without it no frame would come, so a hall that is full ends the connection.
    fn tell_reaches(&mut self) -> Result<(), End> {
        let mail = Mail::Reaches { conn: self.conn, reaches: self.session.reaches() };
        self.shared.crowd.moves();
        if self.tell_hall(mail) {
            return Ok(());
        }
        self.shared.crowd.moved();
        Err(End::Refused(reason::SERVER_BUSY, "the gateway is overloaded"))
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filters: Vec<String>) -> Result<(), End> {
        let (mut codes, mut forwarded) = (Vec::with_capacity(filters.len()), Vec::new());
        for filter in filters {
            let known = self.session.unsubscribe(&filter);
            codes.push(if known.is_some() { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED });
            if known.is_some_and(|s| s.forward) {
                forwarded.push(filter);
            }
        }
        self.shared.meters.subscribed(&mut self.usage, self.session.filters.len());
        self.tell_reaches()?;
        debug_assert!(self.client.version == Version::V5 || !codes.is_empty(), "the decoder refuses an empty list");
        if forwarded.is_empty() {
            return self.send(&Packet::UnsubAck { id, codes });
        }
        self.general.unsubscribe(id, forwarded, codes);
        Ok(())
    }

    /// The rights file changed: a subscription that it no longer allows ends the connection, and the session with it.
    pub(super) fn rights_changed(&mut self) -> Result<(), End> {
        let allowed = |s: &Subscription| self.granted(&s.asked.filter).is_ok();
        if self.session.filters.iter().all(allowed) {
            return Ok(());
        }
        self.session.expiry = std::time::Duration::ZERO;
        Err(End::Refused(reason::NOT_AUTHORISED, "the right to a subscription was withdrawn"))
    }
}
