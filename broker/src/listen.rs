//! The listening sockets: accept, TLS handshake, CONNECT, each within its time and number.

use crate::config::Listener;
use crate::error::DoorError;
use crate::greet::{Peer, greet};
use crate::shared::Shared;
use crate::stats::count;
use crate::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// Pause after the system refused to accept, which it does when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that does not accept yet.
pub(crate) struct Bound {
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    pub(crate) addr: SocketAddr,
}

pub(crate) async fn bind(listener: &Listener) -> Result<Bound, DoorError> {
    let tls = listener.tls.as_ref().map(tls::acceptor).transpose()?;
    let refused = |source| DoorError::Listen { addr: listener.addr, source };
    let socket = TcpListener::bind(listener.addr).await.map_err(refused)?;
    let addr = socket.local_addr().map_err(refused)?;
    Ok(Bound { socket, tls, addr })
}

/// Accepts until the door closes.
pub(crate) async fn accept(bound: Bound, shared: Arc<Shared>, mut open: watch::Receiver<bool>) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    loop {
        let accepted = tokio::select! {
            accepted = bound.socket.accept() => accepted,
            _ = open.changed() => return,
        };
        let Ok((stream, addr)) = accepted else {
            tracing::warn!(listener = %bound.addr, "the system refuses to accept connections");
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let full = shared.counters.connections.load(Ordering::Relaxed) >= shared.limits.connections_max as u64;
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            count(&shared.counters.refused);
            continue;
        };
        if full {
            count(&shared.counters.refused);
            continue;
        }
        let (shared, tls) = (shared.clone(), bound.tls.clone());
        tokio::spawn(async move { serve(shared, stream, addr, tls, permit).await });
    }
}

async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let patience = Duration::from_millis(shared.limits.connect_timeout_ms);
    let Some(acceptor) = tls else {
        let mut stream = stream;
        let peer = Peer { addr, certificate: None };
        let greeted = timeout(patience, greet(&shared, peer, &mut stream)).await;
        drop(permit);
        if let Ok(Some(connection)) = greeted {
            connection.run(stream).await;
        }
        return;
    };
    let greeted = timeout(patience, async {
        let mut stream = acceptor.accept(stream).await.ok()?;
        let certificate =
            stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(tls::identity);
        let connection = greet(&shared, Peer { addr, certificate }, &mut stream).await?;
        Some((connection, stream))
    });
    let greeted = greeted.await;
    drop(permit);
    match greeted {
        Ok(Some((connection, stream))) => connection.run(stream).await,
        _ => tracing::debug!(peer = %addr, "TLS peer did not come in"),
    }
}
