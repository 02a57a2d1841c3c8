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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

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
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(acceptor) = tls else {
        return welcome(shared, stream, guest, None).await;
    };
    let Some(stream) = Box::pin(shake(&shared, stream, guest.addr, acceptor)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(tls::identity);
    welcome(shared, stream, guest, certificate).await;
}

async fn shake(
    shared: &Shared,
    stream: TcpStream,
    addr: SocketAddr,
    acceptor: TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    let shaking = Duration::from_millis(shared.limits.handshake_timeout_ms);
    match timeout(shaking, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => {
            if shared.meters.may_tell() {
                tracing::warn!(peer = %addr, %error, "TLS handshake failed");
            }
            count(&shared.counters.refused);
        }
        Err(_) => late(shared, addr, "no TLS handshake within handshake_timeout_ms"),
    }
    None
}

/// Waits for CONNECT. What comes after it is a task of its own: an idle client then keeps neither the handshake's nor
/// this one's state, which are three times what the connection needs.
async fn welcome<S>(shared: Arc<Shared>, mut stream: S, guest: Guest, certificate: Option<Arc<str>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Guest { addr, entry, permit } = guest;
    let connecting = Duration::from_millis(shared.limits.connect_timeout_ms);
    let peer = Peer { addr, certificate, entry };
    let greeted = timeout(connecting, Box::pin(greet(&shared, peer, &mut stream))).await;
    drop(permit);
    match greeted {
        Ok(Some(connection)) => {
            let (reader, writer) = tokio::io::split(stream);
            drop(tokio::spawn(connection.run(reader, writer)));
        }
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
