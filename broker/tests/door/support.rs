//! A keeper in memory, a door on loopback, clients that collect what they get.

use bytes::Bytes;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_broker::{Anonymous, Door, DoorConfig, Keeper, Kept, Listener, Outgoing, Submission, Verdict};
use tidegate_schemas::{DeviceId, ErrorCode, JobId, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Longest that any single thing in these tests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the fake keeper saw and has.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) prompts: Vec<(DeviceId, Bytes)>,
    pub(crate) expiry: Vec<Option<u64>>,
    pub(crate) replies: Vec<Reply>,
    /// Prompts that were handed over, whether they are on disk or not.
    pub(crate) handed: usize,
    pub(crate) controls: usize,
    pub(crate) outcomes: BTreeMap<(DeviceId, JobId), (Bytes, Reply)>,
    pub(crate) released: Vec<JobId>,
}

/// Refuses payloads that start with `refuse`, takes the others when the gate is open.
pub(crate) struct FakeKeeper {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) gate: watch::Sender<bool>,
}

impl FakeKeeper {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { store: Arc::default(), gate: watch::channel(true).0 })
    }

    pub(crate) fn keep_outcome(&self, device: &str, job: u64, payload: &str) {
        self.keep_outcome_for(device, job, payload, Reply::default());
    }

    pub(crate) fn keep_outcome_for(&self, device: &str, job: u64, payload: &str, reply: Reply) {
        let key = (device.parse().unwrap(), JobId(job));
        self.store.lock().unwrap().outcomes.insert(key, (Bytes::copy_from_slice(payload.as_bytes()), reply));
    }

    pub(crate) async fn until(&self, what: impl Fn(&Store) -> bool) {
        let reached = async {
            while !what(&self.store.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("the keeper sees it in time");
    }
}

impl Keeper for FakeKeeper {
    fn prompt(&self, submission: Submission) -> Kept<Verdict> {
        let (store, mut gate) = (self.store.clone(), self.gate.subscribe());
        store.lock().unwrap().handed += 1;
        Box::pin(async move {
            if submission.payload.starts_with(b"refuse") {
                let frame = Bytes::from_static(b"!busy: full");
                return Verdict::Refused { code: ErrorCode::Busy, message: "full".to_owned(), frame };
            }
            gate.wait_for(|open| *open).await.unwrap();
            let mut store = store.lock().unwrap();
            store.expiry.push(submission.expiry_ms);
            store.replies.push(submission.reply);
            store.prompts.push((submission.device, submission.payload));
            Verdict::Kept { frame: Some(Bytes::from_static(b"accepted")) }
        })
    }

    fn control(&self, _: Submission) -> Kept<Verdict> {
        self.store.lock().unwrap().controls += 1;
        Box::pin(async { Verdict::Kept { frame: None } })
    }

    fn pending(&self, device: &DeviceId, after: Option<JobId>, max: usize) -> Kept<Vec<Outgoing>> {
        let store = self.store.lock().unwrap();
        let of_device = store.outcomes.iter().filter(|((d, job), _)| d == device && after.is_none_or(|a| *job > a));
        let list = of_device.map(|((_, job), (payload, reply))| {
            let (payload, reply) = (payload.clone(), reply.clone());
            Outgoing { job: *job, payload, reply }
        });
        let list = list.take(max).collect();
        Box::pin(async { list })
    }

    fn released(&self, device: &DeviceId, job: JobId) {
        let mut store = self.store.lock().unwrap();
        store.released.push(job);
        store.outcomes.remove(&(device.clone(), job));
    }
}

pub(crate) fn config() -> DoorConfig {
    let origin = tidegate_schemas::Origin { site: "s".parse().unwrap(), gateway: "g".parse().unwrap() };
    let listeners = vec![Listener { addr: "127.0.0.1:0".parse().unwrap(), tls: None }];
    DoorConfig { anonymous: Anonymous::LoopbackOnly, ..DoorConfig::new(origin, listeners) }
}

pub(crate) async fn door() -> (Door, Arc<FakeKeeper>) {
    door_with(config()).await
}

pub(crate) async fn door_with(config: DoorConfig) -> (Door, Arc<FakeKeeper>) {
    let keeper = FakeKeeper::new();
    let door = Door::start(config, keeper.clone()).await.unwrap();
    (door, keeper)
}

/// A users file with `d7` / `secret`, made with parameters that cost a test little.
pub(crate) fn users(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("users");
    write_users(&path, &["d7"]);
    path
}

/// The same for several users, all with `secret`.
pub(crate) fn write_users(path: &std::path::Path, names: &[&str]) {
    use argon2::password_hash::{PasswordHasher, SaltString};
    let params = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
    let hash = argon.hash_password(b"secret", &salt).unwrap();
    let lines: String = names.iter().map(|name| format!("{name}:{hash}\n")).collect();
    std::fs::write(path, format!("# devices\n{lines}")).unwrap();
}

/// Waits until something is so.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("it comes true in time");
}

/// A rumqttc 3.1.1 client whose packets arrive in a channel.
pub(crate) struct Client {
    pub(crate) mqtt: AsyncClient,
    pub(crate) packets: mpsc::UnboundedReceiver<Packet>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    pub(crate) fn options(door: &Door, id: &str) -> MqttOptions {
        let addr = door.local_addrs()[0];
        let mut options = MqttOptions::new(id, addr.ip().to_string(), addr.port());
        options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(200_000, 200_000);
        options
    }

    pub(crate) async fn connect(door: &Door, id: &str) -> Self {
        Self::with(Self::options(door, id)).await
    }

    pub(crate) async fn with(options: MqttOptions) -> Self {
        let (mqtt, mut events) = AsyncClient::new(options, 100);
        let (tx, packets) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(packet) = event
                    && tx.send(packet).is_err()
                {
                    return;
                }
            }
        });
        let mut client = Self { mqtt, packets, task };
        assert!(matches!(client.next().await, Packet::ConnAck(_)));
        client
    }

    pub(crate) async fn next(&mut self) -> Packet {
        timeout(PATIENCE, self.packets.recv()).await.expect("a packet comes in time").expect("the connection is up")
    }

    /// The next packet that is a publish: topic and payload.
    pub(crate) async fn message(&mut self) -> (String, String) {
        loop {
            if let Packet::Publish(publish) = self.next().await {
                return (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap());
            }
        }
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: rumqttc::QoS) {
        self.mqtt.subscribe(filter, qos).await.unwrap();
        while !matches!(self.next().await, Packet::SubAck(_)) {}
    }

    /// Ends without goodbye.
    pub(crate) fn kill(self) {
        self.task.abort();
    }
}

/// A plain socket that speaks bytes.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    pub(crate) async fn open(door: &Door) -> Self {
        Self(TcpStream::connect(door.local_addrs()[0]).await.unwrap())
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        timeout(PATIENCE, self.0.read_exact(&mut got)).await.expect("bytes come in time").unwrap();
        assert_eq!(got, bytes);
    }

    /// The next packet: its first byte and its body. `None` when the door closed.
    pub(crate) async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.0.read_u8().await.ok()?;
            let (mut len, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await.ok()?;
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; len];
            self.0.read_exact(&mut body).await.ok()?;
            Some((first, body))
        };
        timeout(PATIENCE, read).await.expect("a packet comes in time")
    }

    /// Connects as MQTT 5 with a clean start and these properties; the CONNACK's body.
    pub(crate) async fn greet_v5(door: &Door, id: &str, properties: &[u8]) -> (Self, Vec<u8>) {
        let mut raw = Self::open(door).await;
        raw.send(&connect_v5(id, 2, 0, properties)).await;
        let (first, body) = raw.packet().await.expect("CONNACK comes");
        assert_eq!((first, body[1]), (0x20, 0), "{body:02x?}");
        (raw, body)
    }

    /// Subscribes as MQTT 5; the reason code.
    pub(crate) async fn subscribe_v5(&mut self, filter: &str, options: u8) -> u8 {
        let mut body = vec![0, 7, 0];
        body.extend(text(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.packet().await.expect("SUBACK comes");
        assert_eq!(first, 0x90);
        *body.last().unwrap()
    }

    /// Reads until the door closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        // A reset is an end too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut got)).await.expect("the door closes in time");
        got
    }
}

/// CONNECT of 3.1.1, clean session, without credentials.
pub(crate) fn connect_v4(id: &str, keep_alive_s: u8) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + id.len() as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, keep_alive_s];
    packet.extend([0, id.len() as u8]);
    packet.extend(id.as_bytes());
    packet
}

/// A text or binary field: two bytes of length, then the bytes.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut field = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    field.extend(text.as_bytes());
    field
}

/// A packet with its remaining length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut packet, mut len) = (vec![first], body.len());
    loop {
        let low = (len & 0x7f) as u8;
        len >>= 7;
        packet.push(if len == 0 { low } else { low | 0x80 });
        if len == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// CONNECT of MQTT 5 with properties of under 128 bytes.
pub(crate) fn connect_v5(id: &str, flags: u8, keep_alive_s: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags];
    body.extend(keep_alive_s.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(text(id));
    packet(0x10, &body)
}

/// PUBLISH of MQTT 5 with properties of under 128 bytes.
pub(crate) fn publish_v5(flags: u8, topic: &str, id: Option<u16>, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// Whether bytes stand in others.
pub(crate) fn has(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// PUBLISH of 3.1.1 with a body of less than 128 bytes.
pub(crate) fn publish_v4(flags: u8, topic: &[u8], id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic);
    body.extend(id.iter().flat_map(|id| id.to_be_bytes()));
    body.extend(payload);
    let mut packet = vec![0x30 | flags, body.len() as u8];
    packet.extend(body);
    packet
}

pub(crate) const PROMPT: &str = "tg/v1/s/g/prompt/local-1";
pub(crate) const ANSWER: &str = "tg/v1/s/g/answer/local-1";
