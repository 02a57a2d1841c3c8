//! The brokers that the rigs try and compare: our door, as the gateway's own program; rumqttd alone; Debian's
//! mosquitto. Each runs in a process of its own, on loopback, and costs what the kernel says it costs.
//!
//! The door is the whole of `tidegate up`, not a part of it: that is what is installed. Its engine is a child process
//! with a tiny model, idle unless somebody prompts, and not counted.

use super::pki::Pki;
use crate::alone::resident_bytes;
use crate::process::{Process, leashed, own_binary, tidegate_binary, wait_until};
use crate::world::{accepts, free_address, mosquitto_binary};
use anyhow::{Context as _, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate_schemas::{DeviceId, DeviceTopic, Origin, Topic};

/// How long a broker may take until its port accepts, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Descriptors that a rig and its brokers may have: 2,000 connections on both sides, and room.
const DESCRIPTORS: u64 = 16_384;
/// Connections that a gateway takes, unless a rig wants it full.
const CONNECTIONS_MAX: usize = 8_000;
/// Ticks per second of the times in /proc (USER_HZ), the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Ours.
    Door,
    /// rumqttd alone.
    Rumqttd,
    /// Debian's mosquitto.
    Mosquitto,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::Rumqttd => "rumqttd",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// How mosquitto keeps what it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// In memory, without bounds: its fastest, and it drops nothing.
    Memory,
    /// Saved after every change: the nearest that it has to a promise.
    EveryChange,
}

/// A running broker.
pub(crate) struct Peer {
    /// Its process.
    pub(crate) process: Process,
    /// Its plain port.
    pub(crate) address: SocketAddr,
    /// Its port with TLS, or the one for MQTT 5 where rumqttd has two.
    pub(crate) second: SocketAddr,
    /// What it writes.
    pub(crate) log: PathBuf,
}

impl Peer {
    /// Starts the gateway, with a listener for TLS where there is a `pki`. `sections` is added to its configuration.
    pub(crate) fn door(dir: &Path, pki: Option<&Pki>, sections: &Sections) -> anyhow::Result<Self> {
        raise_descriptors()?;
        let (address, second) = (free_address()?, free_address()?);
        let tiny = dir.join("tiny.gguf");
        tidegate_engine::tiny::write(&tiny, &tidegate_engine::tiny::Shape::tiny()).context("cannot write a model")?;
        let sections = Sections { model: Some(sections.model.clone().unwrap_or(tiny)), ..sections.clone() };
        let file = dir.join("tidegate.toml");
        std::fs::write(&file, door_config(dir, (address, second), pki, &sections)).context("cannot write a file")?;
        let mut command = leashed(&tidegate_binary()?)?;
        command.arg("up").arg("--config").arg(&file);
        Self::start("gateway", command, dir.join("gateway.log"), (address, second))
    }

    /// Starts rumqttd alone; `numbers` are what `bare_rumqttd` takes after its addresses.
    pub(crate) fn rumqttd(dir: &Path, numbers: &[usize]) -> anyhow::Result<Self> {
        raise_descriptors()?;
        let program = own_binary()?.with_file_name("examples").join("bare_rumqttd");
        if !program.is_file() {
            bail!(
                "{} is not there, build it with: cargo build --release --workspace --example bare_rumqttd",
                program.display()
            );
        }
        let (address, second) = (free_address()?, free_address()?);
        let mut command = leashed(&program)?;
        command.args([address.to_string(), second.to_string()]).args(numbers.iter().map(usize::to_string));
        Self::start("rumqttd", command, dir.join("rumqttd.log"), (address, second))
    }

    /// Starts mosquitto, with a listener for TLS where there is a `pki`.
    pub(crate) fn mosquitto(dir: &Path, pki: Option<&Pki>, keeping: Keeping) -> anyhow::Result<Self> {
        raise_descriptors()?;
        let (address, second) = (free_address()?, free_address()?);
        let config = dir.join("mosquitto.conf");
        std::fs::write(&config, mosquitto_config(dir, (address, second), pki, keeping))?;
        let mut command = leashed(mosquitto_binary()?)?;
        command.arg("-c").arg(&config);
        Self::start("mosquitto", command, dir.join("mosquitto.log"), (address, second))
    }

    fn start(
        name: &'static str,
        command: std::process::Command,
        log: PathBuf,
        (address, second): (SocketAddr, SocketAddr),
    ) -> anyhow::Result<Self> {
        let mut process = Process::start(name, command, &log)?;
        wait_until(name, START_LIMIT, &mut process, || accepts(address))?;
        Ok(Self { process, address, second, log })
    }

    /// Processor time that it has used, of all its threads, in seconds.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.process.pid());
        let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        parse_cpu_s(&stat).with_context(|| format!("{path} has no times"))
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        resident_bytes(self.process.pid())
    }

    /// Whether its log tells of a panic.
    pub(crate) fn panicked(&self) -> anyhow::Result<bool> {
        let log = std::fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&log).contains("panicked at"))
    }
}

/// User and system time of a line of /proc/PID/stat, in seconds. The name in it may have spaces, so it is cut off.
fn parse_cpu_s(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(") ")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) as f64 / TICKS_PER_S)
}

/// Raises the soft limit of open files; children inherit it.
fn raise_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
            .with_context(|| format!("cannot raise the limit of open files to {wanted}"))?;
    }
    Ok(())
}

/// What a rig adds to the gateway's configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sections {
    /// Connections at once; else more than any rig opens.
    pub(crate) connections_max: Option<usize>,
    /// The model; else a tiny one, whose answers mean nothing.
    pub(crate) model: Option<PathBuf>,
    /// More keys of `[door]`.
    pub(crate) door: String,
    /// Whole sections.
    pub(crate) more: String,
}

/// The gateway's name in these rigs.
pub(crate) fn origin() -> Origin {
    Origin {
        site: "rigs".parse().expect("the name is well-formed"),
        gateway: "door".parse().expect("the name is well-formed"),
    }
}

/// A topic of a device of that gateway.
pub(crate) fn topic(what: DeviceTopic, device: &str) -> anyhow::Result<String> {
    let device: DeviceId = device.parse()?;
    Ok(Topic::device(&origin(), what, &device).name())
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// Bounds that a rig on one address with one identity for all would meet before the one that it is about.
fn door_limits(connections_max: Option<usize>) -> String {
    let connections_max = connections_max.unwrap_or(CONNECTIONS_MAX);
    let same = ["connections_max", "connections_per_identity_max", "connections_per_address_max"];
    let bounds = same.map(|key| format!("{key} = {connections_max}\n")).concat();
    format!("\n[door.limits]\n{bounds}connects_per_address_per_s_max = 5000\nhandshakes_per_address_max = 64\n")
}

fn door_config(dir: &Path, at: (SocketAddr, SocketAddr), pki: Option<&Pki>, sections: &Sections) -> String {
    let origin = origin();
    let mut text = format!("site = \"{}\"\ngateway = \"{}\"\n", origin.site, origin.gateway);
    text += &format!("data_dir = {}\ncontrol_socket = {}\n", quoted(&dir.join("data")), quoted(&dir.join("control")));
    if let Some(model) = &sections.model {
        text += &format!("\n[engine]\nmodel = {}\n", quoted(model));
    }
    text += &format!("\n[page]\nlisten = [\"127.0.0.1:0\"]\n\n[door]\nlisten = [\"{}\"]\n", at.0);
    if let Some(pki) = pki {
        text += &format!("listen_tls = [\"{}\"]\ncert = {}\n", at.1, quoted(&pki.file("cert.pem")));
        text += &format!("key = {}\nclient_ca = {}\n", quoted(&pki.file("key.pem")), quoted(&pki.file("ca.pem")));
    }
    text + &sections.door + &door_limits(sections.connections_max) + &sections.more
}

fn mosquitto_config(dir: &Path, at: (SocketAddr, SocketAddr), pki: Option<&Pki>, keeping: Keeping) -> String {
    let mut text =
        "allow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 0\n".to_owned();
    // A broker that changes its user slips the leash that ends it with the rig. Others than root cannot change.
    text += "user root\nlog_type error\nlog_type warning\n";
    text += match keeping {
        Keeping::Memory => "persistence false\n",
        Keeping::EveryChange => "persistence true\nautosave_on_changes true\nautosave_interval 1\n",
    };
    text += &format!("persistence_location {}/\n", dir.display());
    text += &format!("listener {} {}\n", at.0.port(), at.0.ip());
    if let Some(pki) = pki {
        text += &format!("listener {} {}\ncafile {}\n", at.1.port(), at.1.ip(), pki.file("ca.pem").display());
        text += &format!("certfile {}\nkeyfile {}\n", pki.file("cert.pem").display(), pki.file("key.pem").display());
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 3 0 100 1000 100";
        assert_eq!(parse_cpu_s(stat), Some(4.0));
        assert_eq!(parse_cpu_s("7 (a) S 1"), None);
    }

    #[test]
    fn the_configuration_is_toml() {
        let sections = Sections {
            connections_max: None,
            model: None,
            door: "anonymous = \"off\"\n".to_owned(),
            more: "\n[limits]\nx = 1\n".to_owned(),
        };
        let at: SocketAddr = "127.0.0.1:1000".parse().unwrap();
        let table: toml::Table = door_config(Path::new("/tmp/a \"b"), (at, at), None, &sections).parse().unwrap();
        assert_eq!(table["door"]["anonymous"].as_str(), Some("off"));
        assert_eq!(table["limits"]["x"].as_integer(), Some(1));
        assert_eq!(topic(DeviceTopic::Prompt, "local-1").unwrap(), "tg/v1/rigs/door/prompt/local-1");
    }
}
