//! The worker: answers escalations of all gateways with a larger model, beside the central broker.
//!
//! Invariants: an escalation is acknowledged after the broker acknowledged its resolution, in the order of arrival; a
//! repeated escalation gets the same resolution while the table remembers it; what a worker knows can be lost: the
//! gateway publishes again.

mod desk;
mod engine_side;
mod session;

use crate::cli::WorkerArgs;
use crate::config::find_model;
use crate::engine::{COMMANDS_MAX, Supervisor};
use crate::failure::Failure;
use crate::link::{Backoff, Epoch, from_args};
use desk::Desk;
use rumqttc::v5::MqttOptions;
use session::{End, Session};
use std::time::Duration;
use tidegate_engine::model_file::inspect;
use tidegate_engine::protocol::Start;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::{info, warn};

/// The model that is shipped for workers.
const SHIPPED_MODEL: &str = "tide-cloud.gguf";
/// Largest context window unless asked for more, in tokens.
const CONTEXT_DEFAULT: u32 = 4096;
/// Reports of the engine that wait for the desk.
const ENGINE_REPORTS_MAX: usize = 256;
/// First wait before a reconnect.
const RECONNECT_LEAST: Duration = Duration::from_millis(250);
/// Longest wait before a reconnect: brokers in a data centre come back soon.
const RECONNECT_MOST: Duration = Duration::from_secs(10);
/// A connection that held so long was no accident.
const RECONNECT_STABLE: Duration = Duration::from_secs(10);
/// Longest that the engine may take to end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Runs the worker until it is asked to stop.
///
/// # Errors
/// What kept it from starting.
pub(crate) async fn run(args: &WorkerArgs) -> Result<(), Failure> {
    let client_id =
        args.client_id.clone().unwrap_or_else(|| format!("tidegate-worker-{}-{}", host(), std::process::id()));
    let broker = from_args(&args.url, &args.link, client_id).map_err(Failure::other)?;
    broker.options().map_err(Failure::other)?;
    let model_path = args.model.clone().map_or_else(|| find_model(SHIPPED_MODEL), Ok)?;
    let model = inspect(&model_path).map_err(Failure::other)?;
    let context_tokens = if args.context_tokens > 0 { args.context_tokens } else { CONTEXT_DEFAULT };
    let calibrations = crate::calibration::load(&model_path, &model.sha256);
    let start = Start { context_tokens, slots: args.slots, threads: args.threads, ..Start::new(model_path) };
    let (commands, command_ear) = mpsc::channel(COMMANDS_MAX);
    let (reports, mut engine) = mpsc::channel(ENGINE_REPORTS_MAX);
    let supervisor = tokio::spawn(Supervisor::new(start, command_ear, reports).run());
    let mut desk = Desk::new(commands, args.slots, calibrations);
    info!(broker = %broker.address, slots = args.slots, "working");
    let mut backoff = Backoff::new(RECONNECT_LEAST, RECONNECT_MOST, RECONNECT_STABLE);
    let stop = stopped()?;
    tokio::pin!(stop);
    loop {
        let options = broker.options().map(|options| configured(options, args.slots));
        let end = match options {
            Err(error) => End::Lost(error.to_string()),
            Ok(options) => {
                let mut session = Session::new(Epoch::open(options));
                tokio::select! {
                    end = session.run(&mut desk, &mut engine, &mut backoff) => end,
                    () = &mut stop => End::Stop,
                }
            }
        };
        let End::Lost(why) = end else { break };
        let why = broker.address.unresolved(&why).unwrap_or(why);
        let wait = backoff.next();
        warn!(broker = %broker.address, %why, wait_ms = wait.as_millis(), "the central broker is not there");
        tokio::select! {
            () = idle(&mut desk, &mut engine, wait) => {}
            () = &mut stop => break,
        }
    }
    drop(desk);
    drop(engine);
    let _ = timeout(CLOSE_MAX, supervisor).await;
    info!("stopped");
    Ok(())
}

/// Without a link the engine goes on; what it makes waits in the table.
async fn idle(desk: &mut Desk, engine: &mut mpsc::Receiver<crate::engine::EngineReport>, wait: Duration) {
    let until = tokio::time::Instant::now() + wait;
    loop {
        tokio::select! {
            () = sleep_until(until) => return,
            Some(report) = engine.recv() => { desk.engine(report); }
        }
    }
}

fn configured(mut options: MqttOptions, slots: u32) -> MqttOptions {
    options.set_clean_start(true);
    options.set_manual_acks(true);
    // The group balances itself: a worker whose slots are taken is sent nothing.
    options.set_receive_maximum(Some(u16::try_from(slots).unwrap_or(u16::MAX)));
    options
}

/// Resolves on SIGTERM or SIGINT.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::other(format!("signals cannot be received: {e}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect()
}
