//! The programs that a rig plays with, on loopback: Debian's mosquitto, the proxy, a worker, a gateway.
//! Each has its own free port and lives in the rig's temporary directory.

use crate::process::{Process, leashed, own_binary, tidegate_binary, wait_until};
use anyhow::{Context as _, bail};
use rand::Rng as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_schemas::Origin;

/// How long any of the programs may take until its port accepts.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Messages that mosquitto keeps per client: an outage of the demo must not overflow it.
const BROKER_QUEUE_MAX: u32 = 20_000;
/// Where distributions put mosquitto; Debian's is outside the path of ordinary users.
const MOSQUITTO: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
/// Ports that the kernel gives to no outgoing connection: its range begins at 32768.
const PORTS: Range<u16> = 12_000..32_000;
/// Tries for a free port: each fails only where somebody listens already.
const PORT_TRIES: u32 = 100;
/// Longest wait for a word of the proxy.
const CONTROL_WAIT: Duration = Duration::from_secs(5);

/// A loopback address that is free at this moment, and that no outgoing connection gets while its owner is down.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    for _ in 0..PORT_TRIES {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(PORTS)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("{PORT_TRIES} ports between {} and {} on loopback were all taken", PORTS.start, PORTS.end)
}

/// Whether somebody accepts there.
pub(crate) fn accepts(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// Debian's mosquitto.
pub(crate) fn mosquitto_binary() -> anyhow::Result<&'static Path> {
    let found = MOSQUITTO.iter().map(Path::new).find(|path| path.is_file());
    found.with_context(|| {
        format!("mosquitto is in none of {}; install it with: apt-get install mosquitto", MOSQUITTO.join(", "))
    })
}

/// The central broker.
pub(crate) struct Central {
    _process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Central {
    /// Starts mosquitto with a configuration of its own.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        let program = mosquitto_binary()?;
        let address = free_address()?;
        let config = dir.join("mosquitto.conf");
        std::fs::write(&config, mosquitto_config(address)).context("cannot write mosquitto's configuration")?;
        let mut command = leashed(program)?;
        command.arg("-c").arg(&config);
        let mut process = Process::start("mosquitto", command, &dir.join("mosquitto.log"))?;
        wait_until("mosquitto", START_LIMIT, &mut process, || accepts(address))?;
        Ok(Self { _process: process, address })
    }
}

fn mosquitto_config(address: SocketAddr) -> String {
    format!(
        "# Loopback only, for a demonstration: nobody is asked for a name.\n\
         listener {} {}\nallow_anonymous true\npersistence false\n\
         # A broker that changes its user slips the leash that ends it with the rig. Others than root cannot change.\n\
         user root\n\
         # Small packets must not wait for each other, and an outage must not overflow a session.\n\
         set_tcp_nodelay true\nmax_queued_messages {BROKER_QUEUE_MAX}\n",
        address.port(),
        address.ip()
    )
}

/// The link that can be broken.
pub(crate) struct Proxy {
    _process: Process,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where it takes its words.
    pub(crate) control: SocketAddr,
}

impl Proxy {
    /// Starts a proxy before `to`.
    pub(crate) fn start(dir: &Path, to: SocketAddr) -> anyhow::Result<Self> {
        let (address, control) = (free_address()?, free_address()?);
        let mut command = leashed(&own_binary()?)?;
        command.args(["proxy", "--listen", &address.to_string(), "--to", &to.to_string()]);
        command.args(["--control", &control.to_string()]);
        let mut process = Process::start("proxy", command, &dir.join("proxy.log"))?;
        // The control socket opens last; asking the other port would count as a connection.
        wait_until("the proxy", START_LIMIT, &mut process, || accepts(control))?;
        Ok(Self { _process: process, address, control })
    }

    /// Says one word and gives the answer.
    pub(crate) fn say(&self, word: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.control, CONTROL_WAIT).context("the proxy is gone")?;
        stream.set_read_timeout(Some(CONTROL_WAIT))?;
        writeln!(stream, "{word}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).context("the proxy does not answer")?;
        Ok(answer.trim().to_owned())
    }

    /// Bytes that went up and down so far.
    pub(crate) fn bytes(&self) -> anyhow::Result<(u64, u64)> {
        let stats = self.say("stats")?;
        parse_stats(&stats).with_context(|| format!("the proxy's count is {stats:?}"))
    }
}

fn parse_stats(stats: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = stats.split(' ').collect();
    let ["up", up, "down", down, ..] = words[..] else { return None };
    Some((up.parse().ok()?, down.parse().ok()?))
}

/// Starts a worker beside the central broker.
pub(crate) fn start_worker(dir: &Path, central: SocketAddr, model: &Path) -> anyhow::Result<Process> {
    let mut command = leashed(&tidegate_binary()?)?;
    command.args(["worker", "--url", &format!("mqtt://{central}"), "--model"]).arg(model);
    Process::start("worker", command, &dir.join("worker.log"))
}

/// What a gateway is told.
pub(crate) struct Setup<'a> {
    /// Its model; none takes the shipped one.
    pub(crate) model: Option<&'a Path>,
    /// The central broker; with one, every task may use the cloud.
    pub(crate) bridge: Option<SocketAddr>,
    /// More sections of the configuration.
    pub(crate) more: &'a str,
}

/// Where a gateway is asked.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// Its MQTT listener.
    pub(crate) address: SocketAddr,
    /// The gateway's name, a part of its topics.
    pub(crate) origin: Origin,
}

/// A running gateway.
pub(crate) struct Gateway {
    /// Its process, without the engine child.
    pub(crate) process: Process,
    /// Its door.
    pub(crate) door: Door,
    /// Its control socket.
    pub(crate) control: PathBuf,
    /// From the start of the process until its door accepted.
    pub(crate) started_in: Duration,
}

impl Gateway {
    /// Writes a configuration and starts `tidegate up` with it; returns when the door accepts.
    pub(crate) fn start(dir: &Path, setup: &Setup<'_>) -> anyhow::Result<Self> {
        Self::start_as(dir, setup, leashed)
    }

    /// The same, where `run` makes the command that runs the program.
    pub(crate) fn start_as(
        dir: &Path,
        setup: &Setup<'_>,
        run: impl FnOnce(&Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let (mut process, door) = Self::launch(dir, setup, run)?;
        let address = door.address;
        let started_in = wait_until("the gateway's door", START_LIMIT, &mut process, || accepts(address))?;
        Ok(Self { process, door, control: dir.join("control.sock"), started_in })
    }

    /// The same without waiting.
    pub(crate) fn launch(
        dir: &Path,
        setup: &Setup<'_>,
        run: impl FnOnce(&Path) -> anyhow::Result<Command>,
    ) -> anyhow::Result<(Process, Door)> {
        let door =
            Door { address: free_address()?, origin: Origin { site: "demo".parse()?, gateway: "quay".parse()? } };
        let file = dir.join("tidegate.toml");
        std::fs::write(&file, gateway_config(dir, door.address, setup))
            .context("cannot write the gateway's configuration")?;
        let mut command = run(&tidegate_binary()?)?;
        command.arg("up").arg("--config").arg(&file);
        let process = Process::start("gateway", command, &dir.join("gateway.log"))?;
        Ok((process, door))
    }
}

/// What `tidegate status --json` says of the gateway at a control socket.
pub(crate) fn status(control: &Path) -> anyhow::Result<serde_json::Value> {
    let mut command = Command::new(tidegate_binary()?);
    command.args(["status", "--json", "--control"]).arg(control);
    let output = command.output().context("cannot run tidegate status")?;
    if !output.status.success() {
        bail!("tidegate status: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("tidegate status did not print JSON")
}

/// What `tidegate queue ls --json` says of the gateway in a directory.
pub(crate) fn queued(dir: &Path) -> anyhow::Result<serde_json::Value> {
    let mut command = Command::new(tidegate_binary()?);
    command.args(["queue", "ls", "--json", "--config"]).arg(dir.join("tidegate.toml"));
    let output = command.output().context("cannot run tidegate queue")?;
    if !output.status.success() {
        bail!("tidegate queue: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("tidegate queue did not print JSON")
}

/// Where the gateway keeps its store, below its directory.
pub(crate) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn gateway_config(dir: &Path, door: SocketAddr, setup: &Setup<'_>) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let mut text = format!("site = \"demo\"\ngateway = \"quay\"\ndata_dir = {}\n", quoted(&data_dir(dir)));
    text += &format!("control_socket = {}\n", quoted(&dir.join("control.sock")));
    text += &format!("\n[door]\nlisten = [\"{door}\"]\n\n[page]\nlisten = [\"127.0.0.1:0\"]\n");
    if let Some(model) = setup.model {
        text += &format!("\n[engine]\nmodel = {}\n", quoted(model));
    }
    if let Some(bridge) = setup.bridge {
        text += &format!("\n[bridge]\nurl = \"mqtt://{bridge}\"\n");
        text += "\n[tasks.action]\ncloud = \"allowed\"\n\n[tasks.intent]\ncloud = \"allowed\"\n";
    }
    text + setup.more
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_whatever_the_path() {
        let setup = Setup {
            model: Some(Path::new("/m/\"quoted\".gguf")),
            bridge: Some("127.0.0.1:2000".parse().unwrap()),
            more: "\n[limits]\nx = 1\n",
        };
        let text = gateway_config(Path::new("/tmp/a b"), "127.0.0.1:1000".parse().unwrap(), &setup);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["engine"]["model"].as_str(), Some("/m/\"quoted\".gguf"));
        assert_eq!(table["tasks"]["intent"]["cloud"].as_str(), Some("allowed"));
        assert_eq!(table["door"]["listen"][0].as_str(), Some("127.0.0.1:1000"));
        assert_eq!(table["limits"]["x"].as_integer(), Some(1));
    }

    #[test]
    fn counts_of_the_proxy_are_read() {
        assert_eq!(parse_stats("up 12 down 34 connections 1"), Some((12, 34)));
        assert_eq!(parse_stats("ok"), None);
    }
}
