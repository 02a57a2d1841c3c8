//! One connection. One task does nothing but poll rumqttc; everyone else hears of it through a channel, because
//! `EventLoop::poll` must neither be cancelled nor wait for its own client.

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Time between two pings; rumqttc's v5 client takes no less.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which a connection counts as dead although nobody said so: two pings and their way.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(12);
/// Requests that wait for the poller: window, acknowledgements and subscriptions fit many times.
const REQUESTS_MAX: usize = 512;
/// Events that wait for the reader; when it is full, the poller waits and with it the broker.
const EVENTS_MAX: usize = 256;

/// What a connection says. Not `Debug`: packets hold payloads.
pub(crate) enum LinkEvent {
    /// A packet came.
    Packet(Box<Packet>),
    /// A publish got its packet id; 0 at QoS 0.
    Sent(u16),
    /// The connection is over; why.
    Down(String),
}

/// One connection and the client that speaks on it.
pub(crate) struct Epoch {
    /// For `try_publish`, `try_ack` and `try_subscribe`; never await it in the task that reads the events.
    pub(crate) client: AsyncClient,
    events: mpsc::Receiver<LinkEvent>,
    poller: JoinHandle<()>,
}

impl Epoch {
    /// Starts to connect; CONNACK comes as an event.
    pub(crate) fn open(options: MqttOptions) -> Self {
        let (client, mut connection) = AsyncClient::new(options, REQUESTS_MAX);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let poller = tokio::spawn(async move {
            loop {
                let event = match connection.poll().await {
                    Ok(Event::Incoming(packet)) => LinkEvent::Packet(Box::new(packet)),
                    Ok(Event::Outgoing(Outgoing::Publish(packet))) => LinkEvent::Sent(packet),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => LinkEvent::Down(reason(&error)),
                };
                let over = matches!(event, LinkEvent::Down(_));
                if sender.send(event).await.is_err() || over {
                    return;
                }
            }
        });
        Self { client, events, poller }
    }

    /// The next event; after [`LinkEvent::Down`] nothing more comes. Safe to drop.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        self.events.recv().await.unwrap_or_else(|| LinkEvent::Down("the connection's task ended".to_owned()))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

/// What happened, without the packet that some errors carry.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::NotConnAck(_) => "the broker answered CONNECT with another packet".to_owned(),
        other => other.to_string(),
    }
}
