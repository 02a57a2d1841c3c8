//! The listening sockets: accept, TLS handshake, CONNECT, each within its time and number.

use crate::config::Listener;
use crate::error::DoorError;
use crate::greet::{Peer, greet};
use crate::meter::Entry;
use crate::reload::Reload;
use crate::shared::Shared;
use crate::stats::count;
use crate::tls;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Pause after the system refused to accept, which it does when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that does not accept yet.
pub(crate) struct Bound {
    socket: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    pub(crate) addr: SocketAddr,
}

pub(crate) async fn bind(listener: &Listener, reload: &mut Reload) -> Result<Bound, DoorError> {
    let tls = listener.tls.as_ref().map(|files| reload.tls(files)).transpose()?;
    let refused = |source| DoorError::Listen { addr: listener.addr, source };
    let socket = TcpListener::bind(listener.addr).await.map_err(refused)?;
    let addr = socket.local_addr().map_err(refused)?;
    Ok(Bound { socket, tls, addr })
}

/// Accepts until the door closes. While `handshakes_max` are under way the others wait in the system's queue.
pub(crate) async fn accept(bound: Bound, shared: Arc<Shared>, mut open: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = one(&bound, &shared) => accepted,
            _ = open.changed() => return,
        };
        let (stream, addr, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(listener = %bound.addr, %error, "the system refuses to accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let entry = match shared.meters.enter(addr.ip()) {
            Ok(entry) => entry,
            Err(full) => {
                count(&shared.counters.refused);
                if shared.meters.may_tell() {
                    tracing::warn!(peer = %addr, what = full.what(), "connection refused");
                }
                continue;
            }
        };
        let tls = bound.tls.as_ref().map(|tls| TlsAcceptor::from(tls.borrow().clone()));
        let shared = shared.clone();
        tokio::spawn(async move { serve(shared, stream, Guest { addr, entry, permit }, tls).await });
    }
}

async fn one(bound: &Bound, shared: &Shared) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let closed = |_| std::io::Error::other("the door is closing");
    let permit = shared.handshakes.clone().acquire_owned().await.map_err(closed)?;
    let (stream, addr) = bound.socket.accept().await?;
    Ok((stream, addr, permit))
}

/// A peer that was let in so far, and what it holds of the door.
struct Guest {
    addr: SocketAddr,
    entry: Entry,
    permit: OwnedSemaphorePermit,
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, guest: Guest, tls: Option<TlsAcceptor>) {
    let Guest { addr, entry, permit } = guest;
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let connecting = Duration::from_millis(shared.limits.connect_timeout_ms);
    let Some(acceptor) = tls else {
        let mut stream = stream;
        let peer = Peer { addr, certificate: None, entry };
        let greeted = timeout(connecting, greet(&shared, peer, &mut stream)).await;
        drop(permit);
        match greeted {
            Ok(Some(connection)) => connection.run(stream).await,
            Ok(None) => {}
            Err(_) => late(&shared, addr, "no CONNECT within connect_timeout_ms"),
        }
        return;
    };
    let shaking = Duration::from_millis(shared.limits.handshake_timeout_ms);
    let mut stream = match timeout(shaking, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if shared.meters.may_tell() {
                tracing::warn!(peer = %addr, %error, "TLS handshake failed");
            }
            return count(&shared.counters.refused);
        }
        Err(_) => return late(&shared, addr, "no TLS handshake within handshake_timeout_ms"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(tls::identity);
    let peer = Peer { addr, certificate, entry };
    let greeted = timeout(connecting, greet(&shared, peer, &mut stream)).await;
    drop(permit);
    match greeted {
        Ok(Some(connection)) => connection.run(stream).await,
        Ok(None) => {}
        Err(_) => late(&shared, addr, "no CONNECT within connect_timeout_ms"),
    }
}

fn late(shared: &Shared, addr: SocketAddr, what: &'static str) {
    count(&shared.counters.refused);
    if shared.meters.may_tell() {
        tracing::warn!(peer = %addr, what, "connection refused");
    }
}
