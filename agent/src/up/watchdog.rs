//! What systemd is told (sd_notify(3)): that the gateway is ready, that it stops, and, while its one loop turns, that it
//! lives. Without NOTIFY_SOCKET in the environment nobody is told anything.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Watchdog {
    manager: Option<(UnixDatagram, SocketAddr)>,
}

impl Watchdog {
    /// Finds the service manager, if there is one.
    pub(super) fn new() -> Self {
        let place = std::env::var("NOTIFY_SOCKET").ok();
        let manager = place.and_then(|place| {
            let found = find(&place);
            found.inspect_err(|error| tracing::warn!(%error, place, "the service manager cannot be told anything")).ok()
        });
        Self { manager }
    }

    /// Doors are open, what was on disk is taken up.
    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    /// The loop turns. Said every five seconds: the unit's WatchdogSec is many of them.
    pub(super) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// A drain begins.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, what: &str) {
        if let Some((socket, manager)) = &self.manager
            && let Err(error) = socket.send_to_addr(what.as_bytes(), manager)
        {
            tracing::debug!(%error, what, "the service manager was not told");
        }
    }
}

/// A socket of our own, and the manager's address; one that begins with @ has no file.
fn find(place: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place),
    }?;
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not stop the loop.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
