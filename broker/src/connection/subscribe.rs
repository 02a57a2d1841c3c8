//! Subscriptions: to answers here, to everything else in rumqttd.

use super::{Connection, End};
use crate::codec::{Filter, Packet, Properties, QoS, Version, reason};
use crate::hall::Mail;
use crate::rights::{Grant, Reach};
use crate::session::{Session, Subscription};
use crate::stats::count;
use crate::topic;

/// SUBACK failure of 3.1.1, the only one it has.
const FAILURE: u8 = 0x80;
const SHARED: &str = "$share/";

/// The filters of a session that rumqttd has to know.
pub(super) fn forwarded(session: &Session) -> Vec<Filter> {
    session.filters.iter().filter(|s| s.forward).map(wire).collect()
}

fn wire(subscription: &Subscription) -> Filter {
    Filter { filter: subscription.filter.clone(), qos: subscription.qos, options: 0 }
}

impl Connection {
    pub(super) fn subscribe(&mut self, id: u16, filters: Vec<Filter>, properties: &Properties) -> Result<(), End> {
        if properties.subscription_id.is_some() {
            return Err(End::Refused(reason::SUBSCRIPTION_ID, "subscription identifiers are not available"));
        }
        let (mut codes, mut forward) = (Vec::with_capacity(filters.len()), Vec::new());
        for filter in filters {
            match self.subscribe_one(&filter) {
                Ok(subscription) => {
                    codes.push(subscription.qos as u8);
                    if subscription.forward {
                        forward.push(wire(&subscription));
                    }
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
        self.general.subscribe(id, forward, codes);
        Ok(())
    }

    fn subscribe_one(&mut self, asked: &Filter) -> Result<Subscription, u8> {
        if asked.filter.starts_with(SHARED) {
            return Err(reason::SHARED_UNSUPPORTED);
        }
        topic::check_filter(&asked.filter).map_err(|_| reason::FILTER_INVALID)?;
        let Grant { reach, forward } = self.client.principal.grant(&self.shared.origin, &asked.filter)?;
        self.session.unsubscribe(&asked.filter);
        if self.session.filters.len() >= self.shared.limits.subscriptions_max {
            return Err(reason::QUOTA);
        }
        let qos = asked.qos.min(QoS::AtLeastOnce);
        if let Some(Reach::One(device)) = &reach {
            self.session.feeds.look_again(device);
        }
        let subscription = Subscription { filter: asked.filter.clone(), qos, reach, forward };
        self.session.filters.push(subscription.clone());
        Ok(subscription)
    }

    /// The hall hears of every change; without it no frame would come, so a hall that is full ends the connection.
    fn tell_reaches(&mut self) -> Result<(), End> {
        let mail = Mail::Reaches { conn: self.conn, reaches: self.session.reaches() };
        if self.tell_hall(mail) { Ok(()) } else { Err(End::Refused(reason::SERVER_BUSY, "the gateway is overloaded")) }
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filters: &[String]) -> Result<(), End> {
        let mut codes = Vec::with_capacity(filters.len());
        for filter in filters {
            let known = self.session.unsubscribe(filter);
            if known.as_ref().is_some_and(|s| s.forward) {
                self.general.unsubscribe(filter);
            }
            codes.push(if known.is_some() { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED });
        }
        self.tell_reaches()?;
        debug_assert!(self.client.version == Version::V5 || !codes.is_empty(), "the decoder refuses an empty list");
        self.send(&Packet::UnsubAck { id, codes })
    }
}
