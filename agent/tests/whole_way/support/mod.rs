//! What the tests stand on: processes that end with their test, clients, a proxy. Every wait is for a condition and has
//! a deadline.

mod device;
mod faked;
mod gateway;
mod pki;
mod process;
mod proxy;

pub(crate) use device::Device;
#[allow(unused_imports, reason = "the disk is for the tests of the page only")]
pub(crate) use faked::{Disk, Env, clock};
pub(crate) use gateway::{Central, Gateway, Setup, Worker, edge_model, slow_model};
pub(crate) use pki::{Named, Pki};
pub(crate) use process::{Process, run, tidegate};
pub(crate) use proxy::Proxy;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything: a model on two cores takes seconds, on cores that others use as well, minutes.
pub(crate) const LONG: Duration = Duration::from_secs(180);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LONG, "{what} did not happen within {LONG:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A port that nobody has, and that no outgoing connection gets before its owner listens: the kernel's range for these
/// begins at 32768. Each process of tests begins elsewhere.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7919);
    let next = || 12_000 + (begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16;
    std::iter::repeat_with(next).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}
