//! Gateways, workers and central brokers.

use super::process::{Process, run, tidegate};
use super::{Device, free_port, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The shipped model.
pub(crate) fn edge_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tide-edge.gguf")
}

/// A model that takes its time, so that something can happen in the midst of an answer.
pub(crate) fn slow_model(folder: &Path) -> PathBuf {
    let path = folder.join("slow.gguf");
    if !path.exists() {
        tidegate_engine::tiny::write(&path, &tidegate_engine::tiny::Shape::slow()).unwrap();
    }
    path
}

/// What a gateway is told, and where it keeps its things.
pub(crate) struct Setup {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) model: PathBuf,
    pub(crate) port: u16,
    /// The configuration's section `engine`, without the model.
    pub(crate) engine: String,
    /// The configuration's section `door`.
    pub(crate) door: String,
    /// The configuration's section `page`: a port that nobody has, unless a test says another.
    pub(crate) page: String,
    /// More of the configuration.
    pub(crate) more: String,
    /// `RUST_LOG`.
    pub(crate) log: &'static str,
    /// More of its environment.
    pub(crate) env: super::Env,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let (folder, port) = (Arc::new(tempfile::tempdir().unwrap()), free_port());
        let door = format!("listen = [\"127.0.0.1:{port}\"]");
        let page = "listen = [\"127.0.0.1:0\"]".to_owned();
        let engine = "slots = 1\nthreads = 1".to_owned();
        Self {
            folder,
            model: edge_model(),
            engine,
            port,
            door,
            page,
            more: String::new(),
            log: "info",
            env: Vec::new(),
        }
    }

    /// With a bridge to that port, and tasks whose answers are kept, doubted, or private.
    pub(crate) fn bridged(central: u16) -> Self {
        let more = format!(
            "[bridge]\nurl = \"mqtt://127.0.0.1:{central}\"\n\
             [tasks.action]\ncloud = \"allowed\"\nthreshold = 0.0\n\
             [tasks.doubted]\nsystem = \"intent\"\ncloud = \"allowed\"\nthreshold = 1.0\n\
             [tasks.private]\nsystem = \"intent\"\ncloud = \"never\"\nthreshold = 1.0\n"
        );
        Self { more, ..Self::new() }
    }

    pub(crate) fn config(&self) -> PathBuf {
        let path = self.folder.path().join("tidegate.toml");
        let text = format!(
            "data_dir = \"data\"\ncontrol_socket = \"control.sock\"\n{}\n[engine]\nmodel = {:?}\n{}\n\
             [door]\n{}\n[page]\n{}\n",
            self.root_and_sections().0,
            self.model.display().to_string(),
            self.engine,
            self.door,
            self.page,
        );
        fs::write(&path, format!("{text}{}", self.root_and_sections().1)).unwrap();
        path
    }

    /// TOML wants keys of the root before the first section.
    fn root_and_sections(&self) -> (&str, &str) {
        self.more.split_at(self.more.find('[').unwrap_or(self.more.len()))
    }

    pub(crate) fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    /// With more on the command line.
    pub(crate) fn start_with(&self, more: &[&str]) -> Gateway {
        let mut command = tidegate();
        command.arg("up").args(more).arg("--config").arg(self.config()).env("RUST_LOG", self.log);
        let mut process = Process::start(command.envs(self.env.iter().cloned()));
        process.wait_for_log("listening");
        let control = self.folder.path().join("control.sock");
        Gateway { process, port: self.port, control, _folder: self.folder.clone() }
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    pub(crate) port: u16,
    pub(crate) control: PathBuf,
    /// Lives as long as its gateway.
    _folder: Arc<TempDir>,
}

impl Gateway {
    pub(crate) fn device(&self, name: &str) -> Device {
        Device::connect(self.port, name)
    }

    pub(crate) fn status(&self) -> Value {
        let (status, out, err) = run(tidegate().args(["status", "--json", "--control"]).arg(&self.control));
        assert_eq!(status, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    }

    /// The port of the page, as the log says it.
    #[allow(dead_code, reason = "called by the tests of the page only")]
    pub(crate) fn page(&self) -> u16 {
        until("the page", || {
            let log = self.process.log();
            let (_, rest) = log.split_once("the page is served")?;
            let (_, rest) = rest.split_once("://")?;
            rest.split(['/', '"']).next()?.rsplit_once(':')?.1.parse().ok()
        })
    }

    /// Waits until the status has it.
    pub(crate) fn until_status(&self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.status()).filter(&look))
    }

    pub(crate) fn until_ready(&self) -> Value {
        self.until_status("a ready engine", |s| s["engine"]["ready"] == true)
    }
}

/// Debian's mosquitto as the central broker.
pub(crate) struct Central {
    pub(crate) process: Process,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Central {
    pub(crate) fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let process = Self::spawn(&folder, port);
        Self { process, port, folder }
    }

    /// The same broker again, with nothing of what it knew.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.folder, self.port);
    }

    fn spawn(folder: &TempDir, port: u16) -> Process {
        let path = folder.path().join("mosquitto.conf");
        fs::write(&path, format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\n")).unwrap();
        let mut command = std::process::Command::new("/usr/sbin/mosquitto");
        let mut process = Process::start(command.arg("-c").arg(path));
        process.wait_for_log("running");
        process
    }
}

/// `tidegate worker`.
pub(crate) struct Worker {
    pub(crate) process: Process,
}

impl Worker {
    pub(crate) fn start(central: u16, log: &str) -> Self {
        Self::start_with(central, log, &[])
    }

    /// With more on the command line.
    pub(crate) fn start_with(central: u16, log: &str, more: &[&str]) -> Self {
        let mut command = tidegate();
        command.args(["worker", "--slots", "2", "--threads", "1", "--context-tokens", "512"]).args(more);
        command.arg("--url").arg(format!("mqtt://127.0.0.1:{central}")).arg("--model").arg(edge_model());
        let mut process = Process::start(command.env("RUST_LOG", log));
        process.wait_for_log("connected to the central broker");
        process.wait_for_log("the engine is ready");
        Self { process }
    }
}
