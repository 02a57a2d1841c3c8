//! Who uses how much: connections, handshakes and rates, per connection, identity, address and in all.
//!
//! Invariants: what was counted is given back when its guard is dropped; no lock is held over a wait; the tables of
//! addresses and identities are bounded, and those who do not fit share one entry.

use crate::backend::Brought;
use crate::config::DoorLimits;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses and identities that are told apart, each.
const SCOPES_MAX: usize = 4_096;
const SECOND_NS: u64 = 1_000_000_000;
/// Lines about refused connections per second: a flood of them must not become a flood of the log.
const LINES_PER_S: u64 = 20;

/// A rate with a burst of one second, as the generic cell rate algorithm has it (ITU-T I.371): one number says when all
/// that was taken would have been due.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    per_s: u64,
    due_ns: AtomicU64,
}

impl Rate {
    pub(crate) fn new(per_s: u64) -> Self {
        Self { per_s: per_s.max(1), due_ns: AtomicU64::new(0) }
    }

    /// Takes so many; how long to wait before more may be taken.
    fn take(&self, count: u64, now_ns: u64) -> Duration {
        let cost = count.saturating_mul(SECOND_NS) / self.per_s;
        let due = self.due_ns.load(Ordering::Relaxed).max(now_ns).saturating_add(cost);
        // A race loses one charge at most; the rate is a guard, not an account.
        self.due_ns.store(due, Ordering::Relaxed);
        Duration::from_nanos(due.saturating_sub(now_ns).saturating_sub(SECOND_NS))
    }

    /// Takes one if it is there.
    fn try_take(&self, now_ns: u64) -> bool {
        let due = self.due_ns.load(Ordering::Relaxed).max(now_ns).saturating_add(SECOND_NS / self.per_s);
        let ready = due.saturating_sub(now_ns) <= SECOND_NS;
        if ready {
            self.due_ns.store(due, Ordering::Relaxed);
        }
        ready
    }
}

/// What one address, one identity, or everybody uses.
#[derive(Debug)]
pub(crate) struct Scope {
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    subscriptions: AtomicUsize,
    connects: Rate,
    messages: Rate,
    bytes: Rate,
    /// New names for rumqttd, of an identity.
    brought: Brought,
}

impl Scope {
    fn new(connects_per_s: u64, messages_per_s: u64, bytes_per_s: u64) -> Arc<Self> {
        Arc::new(Self {
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            subscriptions: AtomicUsize::new(0),
            connects: Rate::new(connects_per_s),
            messages: Rate::new(messages_per_s),
            bytes: Rate::new(bytes_per_s),
            brought: Brought::default(),
        })
    }

    fn is_idle(&self, now_ns: u64) -> bool {
        let none = |count: &AtomicUsize| count.load(Ordering::Relaxed) == 0;
        let past = |rate: &Rate| rate.due_ns.load(Ordering::Relaxed) <= now_ns;
        none(&self.connections) && none(&self.handshakes) && past(&self.connects) && past(&self.bytes)
    }
}

/// What a [`Seat`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Connections,
    Handshakes,
}

/// One connection or handshake of a scope, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    scope: Arc<Scope>,
    of: Of,
}

impl Seat {
    fn take(scope: &Arc<Scope>, of: Of, max: usize) -> Option<Self> {
        let seat = Self { scope: Arc::clone(scope), of };
        (seat.count().fetch_add(1, Ordering::Relaxed) < max).then_some(seat)
    }

    fn count(&self) -> &AtomicUsize {
        match self.of {
            Of::Connections => &self.scope.connections,
            Of::Handshakes => &self.scope.handshakes,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::Relaxed);
    }
}

/// All meters of the door.
#[derive(Debug)]
pub(crate) struct Meters {
    begin: Instant,
    limits: DoorLimits,
    all: Arc<Scope>,
    addresses: Table<IpAddr>,
    identities: Table<String>,
    lines: Rate,
    /// Bytes of publishes that are with the keeper.
    pub(crate) waiting_bytes: AtomicU64,
    /// Bytes that wait for clients to read them.
    pub(crate) outgoing_bytes: AtomicU64,
}

/// Why a peer is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Connections,
    AddressConnections,
    AddressHandshakes,
    AddressConnects,
    Connects,
}

impl Full {
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Connections => "connections_max are open",
            Self::AddressConnections => "connections_per_address_max are open from its address",
            Self::AddressHandshakes => "handshakes_per_address_max are under way from its address",
            Self::AddressConnects => "connects_per_address_per_s_max from its address",
            Self::Connects => "connects_per_s_max were reached",
        }
    }
}

/// What a peer holds before it is known: a connection and a handshake of its address.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) seats: Vec<Seat>,
    pub(crate) handshake: Option<Seat>,
    address: Option<Arc<Scope>>,
}

impl Meters {
    pub(crate) fn new(limits: &DoorLimits) -> Self {
        let all = Scope::new(limits.connects_per_s_max, limits.total_messages_per_s_max, limits.total_bytes_per_s_max);
        let group = |connects| Scope::new(connects, limits.group_messages_per_s_max, limits.group_bytes_per_s_max);
        Self {
            begin: Instant::now(),
            all,
            addresses: Table::new(group(limits.connects_per_address_per_s_max)),
            identities: Table::new(group(u64::MAX)),
            lines: Rate::new(LINES_PER_S),
            waiting_bytes: AtomicU64::new(0),
            outgoing_bytes: AtomicU64::new(0),
            limits: limits.clone(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether one more line about refused peers may be written now.
    pub(crate) fn may_tell(&self) -> bool {
        self.lines.try_take(self.now_ns())
    }

    /// A peer asks to come in.
    ///
    /// # Errors
    /// Which bound it meets.
    pub(crate) fn enter(&self, peer: IpAddr) -> Result<Entry, Full> {
        let (now_ns, limits) = (self.now_ns(), &self.limits);
        let mut entry = Entry { seats: Vec::with_capacity(3), handshake: None, address: None };
        if let Some(key) = address(peer) {
            let new = || {
                let (messages, bytes) = (limits.group_messages_per_s_max, limits.group_bytes_per_s_max);
                Scope::new(limits.connects_per_address_per_s_max, messages, bytes)
            };
            let scope = self.addresses.scope(key, now_ns, new);
            if !scope.connects.try_take(now_ns) {
                return Err(Full::AddressConnects);
            }
            let seat = Seat::take(&scope, Of::Handshakes, limits.handshakes_per_address_max);
            entry.handshake = Some(seat.ok_or(Full::AddressHandshakes)?);
            let seat = Seat::take(&scope, Of::Connections, limits.connections_per_address_max);
            entry.seats.push(seat.ok_or(Full::AddressConnections)?);
            entry.address = Some(scope);
        }
        let seat = Seat::take(&self.all, Of::Connections, limits.connections_max);
        entry.seats.push(seat.ok_or(Full::Connections)?);
        if !self.all.connects.try_take(now_ns) {
            return Err(Full::Connects);
        }
        Ok(entry)
    }

    /// An identity is known now. None when it has all the connections that it may.
    pub(crate) fn seat(&self, identity: &str, entry: Entry) -> Option<Usage> {
        let limits = &self.limits;
        let new = || Scope::new(u64::MAX, limits.group_messages_per_s_max, limits.group_bytes_per_s_max);
        let scope = self.identities.scope(identity.to_owned(), self.now_ns(), new);
        let Entry { mut seats, address, .. } = entry;
        seats.push(Seat::take(&scope, Of::Connections, limits.connections_per_identity_max)?);
        let own = Scope::new(u64::MAX, limits.messages_per_s_max, limits.bytes_per_s_max);
        let scopes = [Some(own), Some(Arc::clone(&scope)), address, Some(Arc::clone(&self.all))];
        let scopes = scopes.into_iter().flatten().collect();
        Some(Usage { scopes, identity: scope, all: Arc::clone(&self.all), _seats: seats, subscriptions: 0 })
    }

    /// Takes a packet of one connection; how long it should not be read.
    pub(crate) fn take(&self, usage: &Usage, messages: u64, bytes: u64) -> Duration {
        let now_ns = self.now_ns();
        let wait = |scope: &Arc<Scope>| scope.messages.take(messages, now_ns).max(scope.bytes.take(bytes, now_ns));
        usage.scopes.iter().map(wait).max().unwrap_or_default()
    }

    /// Counts the filters that a connection has now; whether they are within the bounds.
    pub(crate) fn subscribed(&self, usage: &mut Usage, now: usize) -> bool {
        let before = std::mem::replace(&mut usage.subscriptions, now);
        let (identity, all) = (&usage.identity.subscriptions, &usage.all.subscriptions);
        let after = |count: &AtomicUsize| {
            count.fetch_add(now, Ordering::Relaxed);
            count.fetch_sub(before, Ordering::Relaxed).saturating_sub(before)
        };
        let (identity, all) = (after(identity), after(all));
        identity <= self.limits.subscriptions_per_identity_max && all <= self.limits.subscriptions_total_max
    }
}

/// What one connection is charged to.
#[derive(Debug)]
pub(crate) struct Usage {
    scopes: Vec<Arc<Scope>>,
    identity: Arc<Scope>,
    all: Arc<Scope>,
    _seats: Vec<Seat>,
    subscriptions: usize,
}

impl Usage {
    /// What the identity of the connection brought to rumqttd.
    pub(crate) fn brought(&self) -> &Brought {
        &self.identity.brought
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.identity.subscriptions.fetch_sub(self.subscriptions, Ordering::Relaxed);
        self.all.subscriptions.fetch_sub(self.subscriptions, Ordering::Relaxed);
    }
}

/// What bounds per address see of a peer: nothing on loopback, of IPv6 the network that one customer gets (RFC 6177).
fn address(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(ip) => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64))),
        ip => Some(ip),
    }
}

#[derive(Debug)]
struct Table<K> {
    scopes: Mutex<HashMap<K, Arc<Scope>>>,
    /// Shared by those who do not fit.
    crowd: Arc<Scope>,
}

impl<K: std::hash::Hash + Eq> Table<K> {
    fn new(crowd: Arc<Scope>) -> Self {
        Self { scopes: Mutex::default(), crowd }
    }

    fn scope(&self, key: K, now_ns: u64, new: impl FnOnce() -> Arc<Scope>) -> Arc<Scope> {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if scopes.len() >= SCOPES_MAX && !scopes.contains_key(&key) {
            scopes.retain(|_, scope| !scope.is_idle(now_ns));
            if scopes.len() >= SCOPES_MAX {
                return Arc::clone(&self.crowd);
            }
        }
        Arc::clone(scopes.entry(key).or_insert_with(new))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_lets_a_second_through_and_then_waits() {
        let rate = Rate::new(10);
        assert_eq!(rate.take(10, 0), Duration::ZERO);
        assert_eq!(rate.take(5, 0), Duration::from_millis(500));
        assert_eq!(rate.take(1, SECOND_NS * 10), Duration::ZERO);
        let rate = Rate::new(2);
        assert_eq!([0, 0, 0, SECOND_NS / 2].map(|now| rate.try_take(now)), [true, true, false, true]);
    }

    fn limits() -> DoorLimits {
        DoorLimits {
            connections_max: 5,
            connections_per_address_max: 3,
            connections_per_identity_max: 1,
            handshakes_per_address_max: 2,
            connects_per_address_per_s_max: 4,
            subscriptions_per_identity_max: 10,
            subscriptions_total_max: 12,
            ..DoorLimits::default()
        }
    }

    #[test]
    fn each_address_has_its_bounds_and_loopback_only_the_common_one() {
        let meters = Meters::new(&limits());
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let mut first = meters.enter(peer).unwrap();
        let second = meters.enter(peer).unwrap();
        assert_eq!(meters.enter(peer).unwrap_err(), Full::AddressHandshakes);
        first.handshake = None;
        let third = meters.enter(peer).unwrap();
        drop(second);
        assert_eq!(meters.enter(peer).unwrap_err(), Full::AddressConnects);
        let _other = meters.enter("192.0.2.2".parse().unwrap()).unwrap();
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let locals: Vec<_> = (0..2).map(|_| meters.enter(local).unwrap()).collect();
        assert_eq!(meters.enter(local).unwrap_err(), Full::Connections);
        drop((first, third, locals));
        assert!(meters.enter(local).is_ok(), "seats are given back");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| address(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!((of("::1"), of("::ffff:127.0.0.1")), (None, None));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn identities_and_filters_are_counted() {
        let meters = Meters::new(&limits());
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let enter = || meters.enter(local).unwrap();
        let mut usage = meters.seat("d7", enter()).unwrap();
        assert!(meters.seat("d7", enter()).is_none());
        assert!(meters.subscribed(&mut usage, 10));
        assert!(!meters.subscribed(&mut usage, 11));
        assert!(meters.subscribed(&mut usage, 9));
        let mut other = meters.seat("d8", enter()).unwrap();
        assert!(!meters.subscribed(&mut other, 4), "9 and 4 are over the 12 of everybody");
        drop((usage, other));
        let mut again = meters.seat("d7", enter()).unwrap();
        assert!(meters.subscribed(&mut again, 10));
    }
}
