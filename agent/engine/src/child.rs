//! The engine's process: frames come on stdin and go on stdout, logs go on stderr.
//!
//! Invariants: before the second thread starts, the process is confined to its model and its address space to what that
//! is predicted to take; one thread owns model and context,
//! another reads stdin; nothing but frames is written to the parent's
//! pipe; when stdin ends, the process ends within a second, also from the midst of a step.

use crate::batcher::Gone;
use crate::confine::{Confinement, Part, confine_to};
use crate::fit::memory_needed;
use crate::process::{Refused, harden, limit_address_space, load_unwinder, readable_within, take_stdout};
use crate::processor;
use crate::protocol::{FrameError, FromEngine, Start, ToEngine, read_frame, write_frame};
use crate::service::{Ended, ORDERS_MAX, Order, STACK_BYTES, serve};
use crate::shelf;
use std::io::{BufReader, BufWriter, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes between reader and pipe, and writer and pipe: what a pipe holds.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a step may still take when the parent is gone, before the process ends in its midst.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// How the process behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildConfig {
    /// Longest wait for the first message, in milliseconds: a parent that starts an engine knows what to load.
    pub start_wait_ms: u64,
}

impl Default for ChildConfig {
    fn default() -> Self {
        Self { start_wait_ms: 30_000 }
    }
}

/// Why the process ended other than as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The first message did not come in time.
    #[error("no start message within {0} ms")]
    NoStart(u64),
    /// The first message was another.
    #[error("the first message was not a start message")]
    NotStart,
    /// Bytes from the parent were no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was asked.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The model could not be loaded or failed; the parent was told.
    #[error("{0}")]
    Fatal(String),
}

impl From<Refused> for ChildError {
    fn from(Refused { what, source }: Refused) -> Self {
        Self::System { what, source }
    }
}

/// Runs the engine until the parent says stop or closes stdin.
///
/// # Errors
/// See [`ChildError`]. A parent that is gone is no error.
pub fn run(config: ChildConfig) -> Result<(), ChildError> {
    hide_panics();
    harden()?;
    let mut frames = BufWriter::with_capacity(PIPE_BYTES, take_stdout()?);
    let mut stdin = BufReader::with_capacity(PIPE_BYTES, std::io::stdin());
    let Some(start) = first(&mut stdin, config.start_wait_ms)? else { return Ok(()) };
    if let Some(message) = processor::mismatch() {
        // A parent that is gone need not know.
        let _ = write_frame(&mut frames, &FromEngine::Fatal { message: message.clone() });
        return Err(ChildError::Fatal(message));
    }
    // Libraries are opened before the confinement, which allows the model alone.
    #[cfg(feature = "dynamic-backends")]
    crate::backend::backend().map_err(ChildError::Fatal)?;
    load_unwinder();
    if let Some(dir) = &start.prefix_dir
        && let Err(error) = shelf::tidy(dir, start.prefix_bytes_max)
    {
        tracing::warn!(%error, "prefixes of earlier starts stay on the disk");
    }
    tell(confine_to(&start.model_path, start.prefix_dir.as_deref()));
    // What cannot be weighed is refused when it is loaded; a graphics driver reserves hundreds of GiB that it never uses.
    let space =
        memory_needed(&start).ok().filter(|_| !cfg!(any(feature = "cuda", feature = "vulkan", feature = "metal")));
    if let Some(need) = space {
        limit_address_space(need.total, start.threads)?;
    }
    let (orders, inbox) = sync_channel(ORDERS_MAX);
    let (breaks, broken) = sync_channel(1);
    let ends = Ends { orders, breaks };
    spawn("reader", move || ends.read(stdin))?;
    let engine = spawn("engine", move || work(&start, &inbox, frames))?;
    let ended = engine.join();
    match (broken.try_recv(), ended) {
        (Ok(error), _) => Err(error.into()),
        (Err(_), Ok(Ended::Asked)) => Ok(()),
        (Err(_), Ok(Ended::Fatal(message))) => Err(ChildError::Fatal(message)),
        (Err(_), Err(_)) => Err(ChildError::Fatal("the engine's thread panicked".to_owned())),
    }
}

/// Makes every panic of this process tell its place only: its message may quote what it was about, text of a prompt
/// included. The daemon and the worker call it too.
pub fn hide_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%place, "panic");
    }));
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, ChildError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work);
    thread.map_err(|source| ChildError::System { what: "a thread", source })
}

/// The first message, none when the parent closed stdin instead.
fn first(stdin: &mut impl Read, wait_ms: u64) -> Result<Option<Start>, ChildError> {
    if !readable_within(wait_ms)? {
        return Err(ChildError::NoStart(wait_ms));
    }
    match read_frame(stdin)? {
        Some(ToEngine::Start(start)) => Ok(Some(start)),
        Some(_) => Err(ChildError::NotStart),
        None => Ok(None),
    }
}

/// A part that the kernel lacks is said, once: `doctor` explains it.
fn tell(confinement: Confinement) {
    let Confinement { files, calls } = confinement;
    if files == Part::Whole && calls == Part::Whole {
        tracing::debug!("confined to the model file");
    } else {
        tracing::warn!(?files, ?calls, "the kernel does not confine the engine wholly");
    }
}

fn work(start: &Start, inbox: &Receiver<Order>, mut frames: impl Write) -> Ended {
    serve(start, inbox, &mut |message: FromEngine| write_frame(&mut frames, &message).map_err(|_| Gone))
}

/// Where the reader sends what it reads.
struct Ends {
    orders: SyncSender<Order>,
    breaks: SyncSender<FrameError>,
}

impl Ends {
    /// Reads until stdin ends, then gives the engine a moment and ends the process.
    fn read(self, mut stdin: impl Read) {
        let status = match self.forward(&mut stdin) {
            Ok(()) => 0,
            Err(error) => {
                let _ = self.breaks.send(error);
                1
            }
        };
        let _ = self.orders.try_send(Order::Stop);
        std::thread::sleep(CLOSE_GRACE);
        std::process::exit(status);
    }

    fn forward(&self, stdin: &mut impl Read) -> Result<(), FrameError> {
        while let Some(message) = read_frame(stdin)? {
            let order = match message {
                ToEngine::Run(run) => Order::Run(run),
                ToEngine::Abort { job } => Order::Abort(job),
                ToEngine::Stop => return Ok(()),
                // A second start is no message of this protocol.
                ToEngine::Start(_) => return Err(FrameError::Malformed { len: 0 }),
            };
            if self.orders.send(order).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
