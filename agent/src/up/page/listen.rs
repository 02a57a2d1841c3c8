//! Accepts connections, a bounded number at once; the rest wait in the kernel's line, so that a thousand who come at the
//! same moment are all served, one after the other.

use super::patient::Patient;
use super::routes::{self, Service};
use super::{Page, Turned, Why};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

/// Connections of one address at once: all viewers and asks, and as many again for what comes and goes. Each costs a
/// socket and at most 32 KiB.
const CONNECTIONS_MAX: usize = 64;
/// Longest until a request's head is there, TLS handshake not counted: a person's browser sends it at once.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// Longest TLS handshake: a slow radio needs seconds.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head: ours have less than 1 KiB, a browser with foreign cookies for `localhost` up to 8.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Wait after an accept that failed because the process has no sockets left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Page {
    /// Serves until the hub is gone.
    pub(in crate::up) async fn serve(mut self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let inputs = self.shown.desk.inputs.clone();
        let service = routes::service(self.shown.clone());
        loop {
            let stream = tokio::select! {
                accepted = self.accept(&places) => accepted,
                () = inputs.closed() => return,
            };
            let Some((stream, place)) = stream else { continue };
            let (service, inputs, turned) = (service.clone(), inputs.clone(), self.shown.turned.clone());
            let tls = self.tls.as_mut().map(super::tls::Certificate::acceptor);
            tokio::spawn(async move {
                tokio::select! {
                    () = meet(Patient::new(stream), tls, service, &turned) => {}
                    () = inputs.closed() => {}
                }
                drop(place);
            });
        }
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        if places.available_permits() == 0 {
            self.shown.turned.add(Why::Crowd);
        }
        let place = places.clone().acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, _)) => Some((stream, place)),
            Err(error) => {
                debug!(%error, "the page could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// A connection, with TLS or without: one type, so that the whole of HTTP stands in the binary once.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn meet(stream: Patient, tls: Option<TlsAcceptor>, service: Service, turned: &Turned) {
    let Some(tls) = tls else { return speak(Box::new(stream), service, turned).await };
    match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(stream)) => speak(Box::new(stream), service, turned).await,
        Ok(Err(error)) => debug!(%error, "a TLS handshake of the page broke"),
        Err(_) => turned.add(Why::Slow),
    }
}

/// One request, one answer: a connection that waits for more would hold a place.
async fn speak(stream: Box<dyn Stream>, service: Service, turned: &Turned) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).keep_alive(false).max_buf_size(HEAD_BYTES_MAX);
    let service = TowerToHyperService::new(service);
    // Whoever hangs up, sends nonsense or takes too long harms only this connection.
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        debug!(%error, "a connection of the page broke");
        if error.is_timeout() {
            turned.add(Why::Slow);
        } else if error.is_parse() {
            turned.add(Why::Body);
        }
    }
}
