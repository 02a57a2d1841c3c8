//! An ordinary MQTT 3.1.1 device, as firmware would be.

use super::{LONG, until};
use rumqttc::{Client, Event, MqttOptions, NetworkOptions, Packet, QoS, SubscribeReasonCode};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PREFIX: &str = "tg/v1/site/gateway";

/// What a device has seen so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) topics: Vec<String>,
    pub(crate) acknowledged: usize,
    pub(crate) subscribed: usize,
    /// Filters that were refused.
    pub(crate) denied: usize,
    /// Why the connection ended or did not begin.
    pub(crate) ended: Option<String>,
}

/// A device of site `site`, gateway `gateway`.
pub(crate) struct Device {
    name: String,
    client: Client,
    seen: Arc<Mutex<Seen>>,
    published: usize,
    subscriptions: usize,
}

impl Device {
    /// Connects and subscribes its answers.
    pub(crate) fn connect(port: u16, name: &str) -> Self {
        let mut device = Self::observer(port, name);
        device.subscribe(&format!("{PREFIX}/answer/{name}"));
        device
    }

    /// Connects only.
    pub(crate) fn observer(port: u16, name: &str) -> Self {
        Self::with(MqttOptions::new(name, "127.0.0.1", port), name)
    }

    /// Connects with a name and with options of its own.
    pub(crate) fn with(mut options: MqttOptions, name: &str) -> Self {
        options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(256 * 1024, 256 * 1024);
        let (client, mut connection) = Client::new(options, 1000);
        // A password takes its time by intent, and more of it on a busy machine.
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(LONG.as_secs());
        connection.eventloop.set_network_options(network);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            for event in connection.iter() {
                let mut seen = kept.lock().unwrap();
                match event {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        seen.topics.push(publish.topic.clone());
                        seen.payloads.push(publish.payload.to_vec());
                    }
                    Ok(Event::Incoming(Packet::PubAck(_))) => seen.acknowledged += 1,
                    Ok(Event::Incoming(Packet::SubAck(ack))) => {
                        seen.subscribed += 1;
                        seen.denied += usize::from(ack.return_codes.contains(&SubscribeReasonCode::Failure));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        seen.ended = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Self { name: name.to_owned(), client, seen, published: 0, subscriptions: 0 }
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        self.subscriptions += 1;
        until("a SUBACK", || {
            let seen = self.seen();
            assert!(seen.ended.is_none(), "the connection ended before a SUBACK: {:?}", seen.ended);
            (seen.subscribed == self.subscriptions).then_some(())
        });
    }

    /// Publishes a prompt at QoS 1, without waiting.
    pub(crate) fn prompt(&mut self, payload: impl Into<Vec<u8>>) {
        self.publish("prompt", payload);
    }

    pub(crate) fn publish(&mut self, what: &str, payload: impl Into<Vec<u8>>) {
        let topic = format!("{PREFIX}/{what}/{}", self.name);
        self.publish_to(topic, payload);
    }

    /// Publishes to any topic at QoS 1, without waiting.
    pub(crate) fn publish_to(&mut self, topic: String, payload: impl Into<Vec<u8>>) {
        self.published += 1;
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    }

    /// Waits until all that was published is acknowledged.
    pub(crate) fn until_acknowledged(&self) {
        until("the PUBACKs", || (self.seen.lock().unwrap().acknowledged >= self.published).then_some(()));
    }

    /// Waits for the end of the connection; says why.
    pub(crate) fn until_ended(&self) -> String {
        until("the end of the connection", || self.seen().ended.clone())
    }

    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// All JSON frames so far.
    pub(crate) fn frames(&self) -> Vec<Value> {
        self.seen().payloads.iter().filter_map(|p| serde_json::from_slice(p).ok()).collect()
    }

    /// All outcomes of an id so far: final answers and errors.
    pub(crate) fn outcomes(&self, id: &str) -> Vec<Value> {
        let is_outcome = |f: &Value| f["kind"] == "error" || f["kind"] == "answer" && f["provisional"] == false;
        self.frames().into_iter().filter(|f| f["id"] == id && is_outcome(f)).collect()
    }

    pub(crate) fn until_frame(&self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.frames().into_iter().find(&look))
    }

    /// Waits for the outcome of an id.
    pub(crate) fn outcome(&self, id: &str) -> Value {
        until(&format!("the outcome of {id}"), || self.outcomes(id).into_iter().next())
    }

    /// Waits for the answer of an id.
    pub(crate) fn answer(&self, id: &str) -> Value {
        let outcome = self.outcome(id);
        assert_eq!(outcome["kind"], "answer", "{outcome}");
        outcome
    }

    /// Asks one more thing and waits for its answer: whatever was sent before has arrived then.
    pub(crate) fn fence(&mut self, id: &str) {
        self.prompt(format!(r#"{{"id":"{id}","input":"turn on the kitchen light"}}"#));
        self.outcome(id);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}
