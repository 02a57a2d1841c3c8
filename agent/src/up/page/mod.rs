//! The page, `/metrics`, `/healthz` and `/readyz`: HTTP for people and for what watches over gateways.
//!
//! Invariants: every request passes the [`gate`] first; nothing a browser sends by itself changes anything; no text of
//! prompts or answers of other devices without `--reveal`; connections, bodies, time and listeners are bounded; what is
//! slow or hostile here costs the page, never the door.

mod asking;
mod assets;
mod gate;
mod listen;
mod patient;
mod routes;
mod tls;
mod turned;

use super::control::Desk;
use super::gauges::Views;
use crate::config::PageConfig;
use crate::queue::Reveal;
use gate::{Gate, Token};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::info;
pub(super) use turned::{Turned, Why};

/// What is wrong with the file of the token, for `doctor`.
pub(crate) fn token_fault(file: &Path) -> Option<String> {
    Token::read(file).err()
}

/// Pages that are looked at at once, each with a stream of its own.
const VIEWERS_MAX: usize = 16;
/// Prompts of the page under way at once: a person asks one, and the devices' come first.
const ASKS_MAX: usize = 8;

/// What answers need.
pub(super) struct Shown {
    desk: Desk,
    views: Views,
    gate: Gate,
    reveal: Reveal,
    viewers: Arc<Semaphore>,
    asks: Arc<Semaphore>,
    turned: Arc<Turned>,
}

/// One address of the page.
pub(super) struct Page {
    listener: TcpListener,
    tls: Option<tls::Certificate>,
    shown: Arc<Shown>,
}

impl Page {
    /// Binds all addresses; and what is wrong with those where that cannot be.
    pub(super) async fn open(
        config: &PageConfig,
        desk: &Desk,
        views: &Views,
        turned: &Arc<Turned>,
    ) -> (Vec<Self>, Vec<String>) {
        let (mut pages, mut faults) = (Vec::new(), Vec::new());
        let token = match config.token_file.as_deref().map(Token::read).transpose() {
            Ok(token) => token,
            Err(fault) => return (pages, vec![format!("page: {fault}")]),
        };
        let (viewers, asks) = (Arc::new(Semaphore::new(VIEWERS_MAX)), Arc::new(Semaphore::new(ASKS_MAX)));
        for address in &config.listen {
            let tls = match config.tls.clone().map(tls::Certificate::open).transpose() {
                Ok(tls) => tls,
                Err(fault) => {
                    faults.push(format!("page: {fault}"));
                    continue;
                }
            };
            let (listener, bound) = match bind(*address).await {
                Ok(bound) => bound,
                Err(error) => {
                    faults.push(format!("page: cannot listen on {address}: {error}"));
                    continue;
                }
            };
            let scheme = if tls.is_some() { "https" } else { "http" };
            info!(url = %format!("{scheme}://{bound}/"), "the page is served");
            let gate = Gate::new(scheme, bound, &config.hosts, token.clone());
            let (desk, views, reveal) = (desk.clone(), views.clone(), config.reveal);
            let (viewers, asks, turned) = (viewers.clone(), asks.clone(), turned.clone());
            let shown = Shown { desk, views, gate, reveal, viewers, asks, turned };
            pages.push(Self { listener, tls, shown: Arc::new(shown) });
        }
        (pages, faults)
    }
}

async fn bind(address: std::net::SocketAddr) -> std::io::Result<(TcpListener, std::net::SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
