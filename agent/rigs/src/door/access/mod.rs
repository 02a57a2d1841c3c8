//! The rig `access`: identities × actions × topics, tried from outside, against a table that is written down here and
//! not computed from the door's rules. What a listener hears meanwhile is judged, too.

mod matrix;

use super::peers::{Peer, Sections};
use super::pki::Pki;
use super::socket::{PATIENCE, QUIET, Socket};
use super::wire::{self, Connect, Publish, Version, Will, first};
use crate::probe::disk_dir;
use crate::report::{Check, Common, finish};
use anyhow::Context as _;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use matrix::{Action, Case, Word};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// The password of the one user that there is.
pub(super) const PASSWORD: &str = "secret";
/// Response Topic, a property of MQTT 5.
const RESPONSE_TOPIC: u8 = 0x08;

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
}

/// Somebody who comes to the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody in particular, on loopback.
    Local,
    /// The user `d7`, with a password.
    User,
    /// The certificate of `d8`.
    Certificate,
}

impl Who {
    const ALL: [Self; 3] = [Self::Local, Self::User, Self::Certificate];

    /// The device that is its own.
    pub(super) fn device(self) -> &'static str {
        match self {
            Self::Local => "local-a",
            Self::User => "d7",
            Self::Certificate => "d8",
        }
    }

    /// A device that is not.
    pub(super) fn other(self) -> &'static str {
        match self {
            Self::Local => "d7",
            Self::User => "d8",
            Self::Certificate => "local-a",
        }
    }
}

/// Where everybody comes to.
struct Place {
    plain: SocketAddr,
    tls: SocketAddr,
    with_certificate: Arc<rustls::ClientConfig>,
}

impl Place {
    /// Opens a connection and says CONNECT; the answer is still to be read.
    async fn knock(&self, who: Who, connect: Connect<'_>) -> anyhow::Result<Socket> {
        let (mut socket, login) = match who {
            Who::Local => (Socket::open(self.plain, connect.version).await?, None),
            Who::User => (Socket::open(self.plain, connect.version).await?, Some((who.device(), PASSWORD))),
            Who::Certificate => (Socket::open_tls(self.tls, &self.with_certificate, connect.version).await?, None),
        };
        socket.send(&Connect { login, ..connect }.bytes()).await?;
        Ok(socket)
    }

    async fn enter(&self, who: Who, connect: Connect<'_>) -> anyhow::Result<Socket> {
        let mut socket = self.knock(who, connect).await?;
        let code = socket.next().await?.connack_code();
        anyhow::ensure!(code == Some(0), "{who:?} is refused with {code:?}");
        Ok(socket)
    }
}

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let dir = disk_dir("access")?;
    let pki = Pki::new(dir.path())?;
    let users = write_users(dir.path())?;
    let door = format!("users_file = {}\n", toml::Value::String(users.display().to_string()));
    let peer = Peer::door(dir.path(), Some(&pki), &Sections { door, ..Sections::default() })?;
    let with_certificate = pki.client(Some(Who::Certificate.device()))?;
    let place = Place { plain: peer.address, tls: peer.second, with_certificate };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let (tried, wrong) = runtime.block_on(try_all(&place))?;
    wrong.iter().for_each(|wrong| println!("wrong: {wrong}"));
    let checks = [
        Check::at_most("wrong", wrong.len() as f64, 0.0, "cases"),
        Check::at_least("tried", tried as f64, 200.0, "cases"),
    ];
    finish("access", &options.common, &checks, &serde_json::json!({ "tried": tried, "wrong": wrong }))
}

/// A users file with the one user, hashed with parameters that cost a rig little.
pub(super) fn write_users(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let refused = |error: String| anyhow::anyhow!("argon2: {error}");
    let params = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None).map_err(|e| refused(e.to_string()))?;
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"salt of the rigs").map_err(|e| refused(e.to_string()))?;
    let hash = argon.hash_password(PASSWORD.as_bytes(), &salt).map_err(|e| refused(e.to_string()))?;
    let path = dir.join("users");
    std::fs::write(&path, format!("{}:{hash}\n", Who::User.device())).context("cannot write the users")?;
    Ok(path)
}

async fn try_all(place: &Place) -> anyhow::Result<(usize, Vec<String>)> {
    let (mut tried, mut wrong) = (0, Vec::new());
    let mut listeners = Vec::new();
    for who in Who::ALL {
        let mut listener = place.enter(who, Connect::new(Version::V4, who_listens(who))).await?;
        anyhow::ensure!(listener.subscribe("#", 1).await? < 0x80, "{who:?} may not subscribe to #");
        listeners.push((who, listener));
    }
    for who in Who::ALL {
        for case in matrix::cases(who)? {
            for version in [Version::V5, Version::V4] {
                let said = attempt(place, who, version, &case).await;
                let said = said.with_context(|| format!("{who:?} {version:?} {case:?}"))?;
                tried += usize::from(said.is_some());
                if said.is_some_and(|said| said != case.expect) {
                    wrong.push(format!("{who:?} {version:?} {:?} {}: {said:?}", case.action, case.topic));
                }
            }
        }
    }
    for (who, mut listener) in listeners {
        while let Some((topic, _)) = listener.message(QUIET).await? {
            tried += 1;
            if !matrix::may_hear(who, &topic)? {
                wrong.push(format!("{who:?} heard {topic}"));
            }
        }
    }
    for (login, version, code) in matrix::STRANGERS {
        tried += 1;
        let mut socket = Socket::open(place.plain, version).await?;
        socket.send(&Connect { login: Some(login), ..Connect::new(version, "stranger") }.bytes()).await?;
        let said = socket.next().await?.connack_code();
        if said != Some(code) {
            wrong.push(format!("{} with a wrong password: {said:?}", login.0));
        }
    }
    Ok((tried, wrong))
}

fn who_listens(who: Who) -> &'static str {
    match who {
        Who::Local => "listens-local",
        Who::User => "listens-user",
        Who::Certificate => "listens-certificate",
    }
}

/// What the door says to one attempt; none where the version has no such thing.
async fn attempt(place: &Place, who: Who, version: Version, case: &Case) -> anyhow::Result<Option<Word>> {
    let connect = Connect::new(version, "tries");
    match &case.action {
        Action::Will => {
            let will = Some(Will { topic: &case.topic, payload: b"gone", qos: 1 });
            let mut socket = place.knock(who, Connect { will, ..connect }).await?;
            // 3.1.1 has no code for a bad topic: the connection ends.
            let word = match socket.within(PATIENCE).await.map(|packet| packet.and_then(|p| p.connack_code())) {
                Ok(Some(0)) => Word::Yes,
                Ok(Some(_)) | Err(_) => Word::No,
                Ok(None) => anyhow::bail!("the door says nothing"),
            };
            // A will that was let in must not be left behind.
            let _closed = socket.send(&wire::GOODBYE).await;
            Ok(Some(word))
        }
        Action::Subscribe => {
            let mut socket = place.enter(who, connect).await?;
            Ok(Some(if socket.subscribe(&case.topic, 1).await? < 0x80 { Word::Yes } else { Word::No }))
        }
        Action::Respond(_) if version == Version::V4 => Ok(None),
        Action::Respond(response) => {
            let mut properties = vec![RESPONSE_TOPIC];
            wire::text(&mut properties, response.as_bytes());
            anyhow::ensure!(properties.len() < 128, "the response topic is too long for the rig");
            let publish = Publish { properties: &properties, ..Publish::new(&case.topic, 1, case.payload()) };
            let socket = place.enter(who, connect).await?;
            published(socket, version, &publish).await.map(Some)
        }
        Action::Publish { qos, retain } => {
            let publish = Publish { qos: *qos, retain: *retain, ..Publish::new(&case.topic, 1, case.payload()) };
            let mut socket = place.enter(who, connect).await?;
            if version == Version::V4 {
                // Refusals of 3.1.1 come as frames.
                socket.subscribe(&matrix::answers(who)?, 1).await?;
            }
            published(socket, version, &publish).await.map(Some)
        }
    }
}

/// What becomes of a publish at QoS 1 or 2: a reason code, in 3.1.1 a frame before the acknowledgement, or the end.
async fn published(mut socket: Socket, version: Version, publish: &Publish<'_>) -> anyhow::Result<Word> {
    socket.send(&publish.bytes(version)).await?;
    let due = if publish.qos == 2 { first::PUBREC } else { first::PUBACK };
    loop {
        let Ok(packet) = socket.within(PATIENCE).await else { return Ok(Word::No) };
        let packet = packet.context("the door says nothing")?;
        socket.acknowledge(&packet).await?;
        let refused =
            packet.message(version).is_some_and(|m| String::from_utf8_lossy(m.payload).contains("not_allowed"));
        if refused || packet.first == first::DISCONNECT {
            return Ok(Word::No);
        }
        if packet.kind() == due {
            // Other refusals than this one say that the topic was the caller's to use.
            let not_authorised = version == Version::V5 && packet.ack_code() == 0x87;
            return Ok(if not_authorised { Word::No } else { Word::Yes });
        }
    }
}
