//! The way into rumqttd: a thread of its own starts the router and lets clients in and out, since each takes a call
//! that waits for the router.
//!
//! Invariants: what is asked is done in the order in which it was asked, so that a client id that left can come again;
//! a router that hangs holds up this thread and nobody else.

use super::inside::{Inside, Line};
use super::{Hello, Memory, PATIENCE};
use rumqttd::local::LinkBuilder;
use rumqttd::protocol::Packet;
use rumqttd::{Notification, Router, RouterConfig};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::subscriber::NoSubscriber;

/// Orders beside two for each connection, which is opened and closed.
const SPARE: usize = 64;

/// What the thread is told.
enum Order {
    Open {
        name: String,
        memory: Memory,
        reply: oneshot::Sender<Line>,
    },
    /// Ends what has this name.
    Close {
        name: String,
        memory: Memory,
    },
}

/// The thread's ear. It ends with the last of them.
#[derive(Clone)]
pub(crate) struct Entrance {
    orders: SyncSender<Order>,
    /// Ends when the router is given up.
    alive: watch::Receiver<()>,
}

impl Entrance {
    /// Starts rumqttd's router and the thread. Links end when the sender of `alive` is dropped: a router cannot be
    /// stopped, but left.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(config: RouterConfig, alive: watch::Receiver<()>) -> io::Result<Self> {
        let (orders, ear) = sync_channel(2 * config.max_connections + SPARE);
        std::thread::Builder::new().name("rumqttd".to_owned()).spawn(move || serve(config, &ear))?;
        Ok(Self { orders, alive })
    }

    /// Lets a client in.
    ///
    /// # Errors
    /// The router has died, hangs, or has no room.
    pub(crate) async fn open(self, hello: &Hello) -> io::Result<Inside> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Open { name: hello.client_id.clone(), memory: hello.memory, reply };
        self.orders.try_send(order).map_err(|_| io::Error::other("rumqttd's thread takes no orders"))?;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "rumqttd does not answer");
        let line = timeout(PATIENCE, answer).await.map_err(late)?;
        let line = line.map_err(|_| io::Error::other("rumqttd refused the connection"))?;
        Ok(Inside::new(line, hello, self))
    }

    /// Shows a client out. If the thread takes no orders the router is lost already.
    pub(super) fn close(&self, name: String, memory: Memory) {
        let _ = self.orders.try_send(Order::Close { name, memory });
    }

    /// Resolves when the router is given up.
    pub(super) async fn given_up(mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

/// The thread. rumqttd calls a client that comes twice an error, so nothing of it is logged here; that it died is for
/// the watcher to say.
fn serve(config: RouterConfig, orders: &Receiver<Order>) {
    let _silent = tracing::subscriber::set_default(NoSubscriber::default());
    let router = Router::new(0, config).spawn();
    // Whoever has the name is sent away first.
    let enter = |name: &str, clean: bool| {
        let (tx, rx, notification) = LinkBuilder::new(name, router.clone()).clean_session(clean).build().ok()?;
        Some(Line::new(tx, rx, present(notification)))
    };
    for order in orders {
        match order {
            Order::Open { name, memory, reply } => {
                let forgotten = if memory == Memory::Fresh { enter(&name, true) } else { None };
                if let Some(line) = enter(&name, memory == Memory::None) {
                    // What nobody waits for any more leaves as it is dropped.
                    let _ = reply.send(line);
                }
                forgotten.into_iter().for_each(Line::forget);
            }
            Order::Close { name, memory } => drop(enter(&name, memory == Memory::None)),
        }
    }
}

fn present(notification: Notification) -> bool {
    matches!(notification.into(), Some(Packet::ConnAck(ack, _)) if ack.session_present)
}
