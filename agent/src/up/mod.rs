//! The gateway: shells around the dispatcher, wired, run and drained.
//!
//! The hub owns every decision and everything that belongs to open jobs; the shells (door, store, engine, bridge,
//! control socket) translate between bytes and its events and commands, and know nothing of each other.

mod ailing;
mod bridge;
mod build;
mod canary;
mod certificates;
mod clock;
mod control;
mod crossing;
mod delivery;
mod disk;
mod front;
mod gauges;
mod hub;
mod ingress;
mod judged;
mod lookup;
mod machine;
mod message;
mod model;
mod notices;
mod onlookers;
mod page;
mod perform;
mod queue;
mod reloads;
mod succession;
mod templates;
mod trial;
mod view;
mod watchdog;

pub(crate) use model::signals;
pub(crate) use page::token_fault;
pub(crate) use templates::engine_start;

use crate::cli::UpArgs;
use crate::failure::Failure;
use message::ToBridge;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

/// Longest that each shell may take to close, after the hub has drained.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Runs the gateway until it is asked to stop.
///
/// # Errors
/// What kept it from starting, or from going on.
pub(crate) async fn run(args: &UpArgs) -> Result<(), Failure> {
    let config = build::configure(args)?;
    let (stop, stopped) = watch::channel(false);
    listen_for_signals(stop.clone())?;
    let mut gateway = build::build(&config, stop).await?;
    gateway.hub.watchdog.ready();
    gateway.hub.run(gateway.ears, stopped, config.drain).await;
    close(gateway.hub, gateway.tasks, gateway.will).await
}

/// SIGTERM and SIGINT ask for a drain; a second one changes nothing, the bound holds.
fn listen_for_signals(stop: watch::Sender<bool>) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::other(format!("signals cannot be received: {e}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(())
}

/// Says goodbye, closes the door, then the store: what was acknowledged is on disk before the process ends.
async fn close(
    hub: hub::Hub,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    will: (String, bytes::Bytes),
) -> Result<(), Failure> {
    let hub::Hub { hands, fatal, .. } = hub;
    let hub::Hands { spool, front, engine, successors, bridge, reports } = hands;
    drop((engine, successors, reports));
    if let Some(bridge) = bridge {
        let _ = bridge.try_send(ToBridge::Stop(will.0, will.1));
    }
    if timeout(CLOSE_MAX, front.shutdown()).await.is_err() {
        warn!("the door did not close in time");
    }
    for task in tasks {
        if timeout(CLOSE_MAX, task).await.is_err() {
            warn!("a shell did not end in time");
        }
    }
    let closed = timeout(CLOSE_MAX, tokio::task::spawn_blocking(move || spool.close())).await;
    if closed.is_err() {
        warn!("the store did not close in time");
    }
    match fatal {
        Some(failure) => Err(failure),
        None => {
            info!("stopped");
            Ok(())
        }
    }
}
