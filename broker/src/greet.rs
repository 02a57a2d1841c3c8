//! From the first byte to CONNACK: who is it, may it come in, which session does it get.

use crate::auth::Login;
use crate::codec::{
    ConnAck, Connect, Malformed, Packet, Properties, Version, decode, encode_within, peek_version, reason,
};
use crate::config::Anonymous;
use crate::connection::publish::ALIASES_MAX;
use crate::connection::{Client, Connection, Place};
use crate::hall::{Attach, Attached, Detach, Mail, Wire};
use crate::meter::Entry;
use crate::rights::{Action, Names, Principal, Target};
use crate::shared::Shared;
use crate::stats::count;
use crate::topic;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

/// Notes that wait for one connection, in number. Frames beyond are dropped, outcomes come from the store.
const NOTES_MAX: usize = 64;
/// Longest client id, in bytes: MQTT asks for 23, serial numbers and UUIDs need more.
const CLIENT_ID_BYTES_MAX: usize = 128;
const READ_BYTES: usize = 1024;

/// What is known of a peer before it speaks MQTT.
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// The identity of its certificate.
    pub(crate) certificate: Option<Arc<str>>,
    /// What it holds of the door's bounds.
    pub(crate) entry: Entry,
}

/// Why a peer is turned away: MQTT 5 reason code and fact.
struct TurnedAway(u8, &'static str);

/// How a peer can be answered.
#[derive(Clone, Copy)]
struct Ears {
    version: Version,
    /// Its Maximum Packet Size (MQTT 5.0, 3.1.2.11.4).
    bytes_max: usize,
}

impl Ears {
    fn of(connect: &Connect) -> Self {
        let bytes_max = connect.properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize);
        Self { version: connect.version, bytes_max }
    }
}

/// Reads CONNECT and answers it. `None`: the peer was turned away, and knows why where the protocol can say it.
pub(crate) async fn greet<S>(shared: &Arc<Shared>, peer: Peer, stream: &mut S) -> Option<Box<Connection>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut incoming = BytesMut::new();
    let connect = match read_connect(shared, stream, &mut incoming).await {
        Ok(connect) => connect?,
        Err(bad) => {
            let version = peek_version(&incoming).unwrap_or(Version::V4);
            let ears = Ears { version, bytes_max: usize::MAX };
            turn_away(shared, peer.addr, stream, ears, &TurnedAway(bad.reason, bad.what)).await;
            return None;
        }
    };
    let (ears, addr) = (Ears::of(&connect), peer.addr);
    match admit(shared, peer, connect).await {
        Ok((client, place, ack)) => {
            let mut out = BytesMut::new();
            let fits = encode_within(&Packet::ConnAck(Box::new(ack)), ears.version, ears.bytes_max, &mut out);
            debug_assert!(fits, "it was tried before the session was asked for");
            Some(Connection::new(shared.clone(), client, place, incoming, out))
        }
        Err(away) => {
            turn_away(shared, addr, stream, ears, &away).await;
            None
        }
    }
}

async fn read_connect<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    incoming: &mut BytesMut,
) -> Result<Option<Connect>, Malformed> {
    loop {
        incoming.reserve(READ_BYTES);
        match stream.read_buf(incoming).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
        if incoming[0] != 0x10 {
            return Err(Malformed::protocol("first packet is not CONNECT"));
        }
        let mut copy = incoming.clone();
        match decode(&mut copy, Version::V4, shared.limits.packet_bytes_max)? {
            Some(Packet::Connect(connect)) => {
                *incoming = copy;
                return Ok(Some(*connect));
            }
            Some(_) => return Err(Malformed::protocol("first packet is not CONNECT")),
            None => {}
        }
    }
}

async fn turn_away<S: AsyncWrite + Unpin>(
    shared: &Shared,
    peer: SocketAddr,
    stream: &mut S,
    ears: Ears,
    away: &TurnedAway,
) {
    count(&shared.counters.refused);
    let TurnedAway(code, what) = *away;
    if shared.meters.may_tell() {
        tracing::warn!(%peer, code = format_args!("0x{code:02x}"), what, "connection refused");
    }
    let code = match ears.version {
        Version::V5 => code,
        Version::V4 => match v4_code(code) {
            Some(code) => code,
            None => return,
        },
    };
    let properties = Properties { reason_string: Some(what.to_owned()), ..Properties::default() };
    let ack = ConnAck { session_present: false, code, properties };
    let mut out = BytesMut::new();
    encode_within(&Packet::ConnAck(Box::new(ack)), ears.version, ears.bytes_max, &mut out);
    // A peer that is turned away may be gone already.
    let _ = (stream.write_all(&out).await, stream.shutdown().await);
}

/// The CONNACK code of 3.1.1; what it has no code for is a close.
fn v4_code(code: u8) -> Option<u8> {
    match code {
        reason::BAD_VERSION => Some(1),
        reason::BAD_CLIENT_ID => Some(2),
        reason::SERVER_BUSY | reason::QUOTA => Some(3),
        reason::BAD_LOGIN => Some(4),
        reason::NOT_AUTHORISED => Some(5),
        _ => None,
    }
}

async fn admit(shared: &Shared, peer: Peer, mut connect: Connect) -> Result<(Client, Place, ConnAck), TurnedAway> {
    if connect.properties.auth_method.is_some() {
        return Err(TurnedAway(reason::BAD_AUTH_METHOD, "no extended authentication method is known"));
    }
    let principal = identify(shared, &peer, &connect).await?;
    let assigned = name_client(&mut connect)?;
    check_will(shared, &principal, &mut connect)?;
    check_room(shared, &connect, assigned)?;
    let Peer { addr, entry, .. } = peer;
    let (place, present) = attach(shared, &connect, &principal, entry).await?;
    let ack = welcome(shared, &connect, present, assigned);
    let keep_alive_s = ack.properties.server_keep_alive_s.unwrap_or(connect.keep_alive_s);
    let receive_max = connect.properties.receive_max.unwrap_or(u16::MAX).min(shared.limits.inflight_max);
    let client = Client {
        client_id: connect.client_id,
        principal,
        peer: addr,
        version: connect.version,
        keep_alive: Duration::from_secs(keep_alive_s.into()),
        receive_max: usize::from(receive_max),
        packet_bytes_max: connect.properties.packet_bytes_max.map_or(usize::MAX, |max| max as usize),
        will: connect.will,
        present,
        wants_reasons: connect.properties.problem_wanted != Some(0),
    };
    tracing::debug!(who = %client.principal, peer = %addr, client = ?client.client_id, present, "connected");
    Ok((client, place, ack))
}

/// A certificate says who it is; else the user name, with its password; else, on loopback, nobody has to.
async fn identify(shared: &Shared, peer: &Peer, connect: &Connect) -> Result<Principal, TurnedAway> {
    if let Some(name) = &peer.certificate {
        return Ok(Principal::Named(name.clone()));
    }
    let Some(user) = &connect.user else {
        let open = shared.anonymous == Anonymous::LoopbackOnly && peer.addr.ip().to_canonical().is_loopback();
        let refused = TurnedAway(reason::NOT_AUTHORISED, "without certificate or user name only loopback is let in");
        return if open { Ok(Principal::Local) } else { Err(refused) };
    };
    let wrong = TurnedAway(reason::BAD_LOGIN, "user name or password is wrong");
    let Some(logins) = &shared.logins else { return Err(wrong) };
    let password = connect.password.as_deref().unwrap_or_default();
    match logins.check(user, password, peer.addr.ip()).await {
        Login::Good => Ok(Principal::Named(user.as_str().into())),
        Login::Bad => Err(wrong),
        Login::Busy => Err(TurnedAway(reason::SERVER_BUSY, "too many logins at once or too many failed ones")),
    }
}

fn check_will(shared: &Shared, principal: &Principal, connect: &mut Connect) -> Result<(), TurnedAway> {
    let Some(will) = &mut connect.will else { return Ok(()) };
    let announced = shared.backend.address.borrow().announced.clone();
    if announced.qos_max.is_some_and(|max| will.qos as u8 > max) {
        return Err(TurnedAway(reason::QOS_UNSUPPORTED, "the QoS of the will is above the maximum"));
    }
    if will.retain && announced.retain_available == Some(0) {
        return Err(TurnedAway(reason::RETAIN_UNSUPPORTED, "retained messages are not available"));
    }
    topic::check_name(&will.topic, shared.topics()).map_err(|bad| TurnedAway(reason::TOPIC_INVALID, bad.0))?;
    // A copy, so that a will does not keep the whole CONNECT alive.
    will.payload = Bytes::copy_from_slice(&will.payload);
    if principal.target(&shared.origin, &will.topic) != Target::General {
        return Err(TurnedAway(reason::NOT_AUTHORISED, "a will below tg is not allowed"));
    }
    let names = Names { identity: principal.identity(), client_id: &connect.client_id };
    match shared.rights.borrow().allow(Action::Will, names, &will.topic) {
        true => Ok(()),
        false => Err(TurnedAway(reason::NOT_AUTHORISED, "no rule allows this will")),
    }
}

/// A client that cannot take our CONNACK is told so before it takes a session over (MQTT 5.0, 3.1.2.11.4).
fn check_room(shared: &Shared, connect: &Connect, assigned: bool) -> Result<(), TurnedAway> {
    let ears = Ears::of(connect);
    let ack = Packet::ConnAck(Box::new(welcome(shared, connect, true, assigned)));
    match ears.bytes_max == usize::MAX || encode_within(&ack, ears.version, ears.bytes_max, &mut BytesMut::new()) {
        true => Ok(()),
        false => Err(TurnedAway(reason::TOO_LARGE, "CONNACK is over the client's maximum packet size")),
    }
}

/// Gives a nameless client a name. Returns whether it did.
fn name_client(connect: &mut Connect) -> Result<bool, TurnedAway> {
    if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
        return Err(TurnedAway(reason::BAD_CLIENT_ID, "client id is longer than 128 bytes"));
    }
    if !connect.client_id.is_empty() {
        return Ok(false);
    }
    if connect.version == Version::V4 && !connect.clean_start {
        return Err(TurnedAway(reason::BAD_CLIENT_ID, "client id is empty and the session is to be kept"));
    }
    let mut random = [0; 12];
    getrandom::fill(&mut random).map_err(|_| TurnedAway(reason::SERVER_BUSY, "the system has no randomness"))?;
    connect.client_id = random.iter().fold("auto-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    Ok(true)
}

async fn attach(
    shared: &Shared,
    connect: &Connect,
    principal: &Principal,
    entry: Entry,
) -> Result<(Place, bool), TurnedAway> {
    let busy = || TurnedAway(reason::SERVER_BUSY, "the session could not be given");
    let (notes_tx, notes) = mpsc::channel(NOTES_MAX);
    let (end, notice) = oneshot::channel();
    let (reply, attached) = oneshot::channel();
    let stale = Arc::default();
    let wire = Wire { notes: notes_tx, end, stale: Arc::clone(&stale) };
    // A client id names a session of one identity. Borrowed by another, it opens neither session nor answers of the first.
    let (client_id, clean_start) = (format!("{principal}/{}", connect.client_id), connect.clean_start);
    let mail = Mail::Attach(Attach { client_id, clean_start, wire, reply });
    shared.hall.send(mail).await.map_err(|_| busy())?;
    let Attached { conn, mut session, present } = attached.await.map_err(|_| busy())?;
    // Only now has a connection that is taken over given its place back.
    let Some(usage) = shared.meters.seat(principal.identity(), entry) else {
        let hall = shared.hall.clone();
        let detach = Mail::Detach(Box::new(Detach { conn, session, will: None }));
        // A task of its own: the session must come back even if this wait is cut off. A hall that closed needs it not.
        tokio::spawn(async move { drop(hall.send(detach).await) });
        return Err(TurnedAway(reason::QUOTA, "connections_per_identity_max are open"));
    };
    session.expiry = match connect.version {
        Version::V4 if connect.clean_start => Duration::ZERO,
        Version::V4 => shared.limits.expiry(u32::MAX),
        Version::V5 => shared.limits.expiry(connect.properties.session_expiry_s.unwrap_or(0)),
    };
    Ok((Place { conn, session, notes, notice, stale, usage }, present))
}

fn welcome(shared: &Shared, connect: &Connect, session_present: bool, assigned: bool) -> ConnAck {
    let limits = &shared.limits;
    let granted = |asked: u32| u32::try_from(limits.expiry(asked).as_secs()).unwrap_or(u32::MAX);
    let expiry = connect.properties.session_expiry_s;
    let backend = shared.backend.address.borrow().announced.clone();
    let packet_bytes_max = u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX);
    let properties = Properties {
        session_expiry_s: expiry.map(granted).filter(|granted| Some(*granted) != expiry),
        receive_max: Some(limits.receive_max),
        packet_bytes_max: Some(backend.packet_bytes_max.map_or(packet_bytes_max, |max| max.min(packet_bytes_max))),
        topic_alias_max: Some(ALIASES_MAX),
        assigned_client_id: assigned.then(|| connect.client_id.clone()),
        server_keep_alive_s: (connect.version == Version::V5 && connect.keep_alive_s > limits.keep_alive_max_s)
            .then_some(limits.keep_alive_max_s),
        qos_max: backend.qos_max,
        retain_available: backend.retain_available,
        wildcard_available: backend.wildcard_available,
        shared_available: backend.shared_available,
        subscription_ids_available: backend.subscription_ids_available,
        ..Properties::default()
    };
    ConnAck { session_present, code: reason::SUCCESS, properties }
}
