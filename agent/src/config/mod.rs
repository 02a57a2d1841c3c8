//! The configuration: one TOML file, read raw by [`reader`], checked whole, then real. What stands here is valid.

mod bounds;
mod bridge;
mod check;
mod door;
mod example;
mod intake;
mod page;
mod places;
mod policy;
mod reader;
mod shipped;
mod tasks;

pub(crate) use bridge::BridgeConfig;
pub(crate) use check::{Source, check, load};
pub(crate) use example::{example, example_json};
pub(crate) use page::{PageConfig, PageTls};
pub(crate) use places::{control_candidates, find_model};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_broker::{Anonymous, BackendConfig, DoorLimits, Listener};
use tidegate_core::Task;
use tidegate_engine::protocol::CacheType;
use tidegate_schemas::{Origin, TaskName};

use crate::link::Broker;

/// The packaged configuration file, read when none is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/tidegate/tidegate.toml";

/// What a gateway is told.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Its name.
    pub(crate) origin: Origin,
    /// Where the store lives.
    pub(crate) data_dir: PathBuf,
    /// The Unix socket for the CLI.
    pub(crate) control: PathBuf,
    /// The task of a prompt that names none.
    pub(crate) default_task: TaskName,
    /// What may be asked.
    pub(crate) tasks: BTreeMap<TaskName, Task>,
    /// Who may connect, and where.
    pub(crate) door: DoorConfig,
    /// The model.
    pub(crate) engine: EngineConfig,
    /// Bounds of the store.
    pub(crate) spool: tidegate_spool::Limits,
    /// Bounds of the dispatcher.
    pub(crate) limits: tidegate_core::Limits,
    /// The central broker, if there is one.
    pub(crate) bridge: Option<BridgeConfig>,
    /// The devices' own broker, in place of the door, if there is one.
    pub(crate) intake: Option<Broker>,
    /// The page.
    pub(crate) page: PageConfig,
    /// Longest time that a stop takes.
    pub(crate) drain: Duration,
}

impl Config {
    /// Another data directory, and with it the control socket where that follows the data.
    pub(crate) fn move_data(&mut self, dir: PathBuf) {
        if self.control == places::control(&self.data_dir) {
            self.control = places::control(&dir);
        }
        self.data_dir = dir;
    }
}

/// Who may connect, and where.
#[derive(Debug, Clone)]
pub(crate) struct DoorConfig {
    /// Sockets.
    pub(crate) listeners: Vec<Listener>,
    /// File of users.
    pub(crate) users: Option<PathBuf>,
    /// File of rights on general topics.
    pub(crate) rights: Option<PathBuf>,
    /// Patterns of Response Topics.
    pub(crate) reply_topics: Vec<String>,
    /// What carries general traffic.
    pub(crate) backend: BackendConfig,
    /// Who may come without a name.
    pub(crate) anonymous: Anonymous,
    /// Its bounds.
    pub(crate) limits: DoorLimits,
}

/// The model and what it may take.
#[derive(Debug, Clone)]
pub(crate) struct EngineConfig {
    /// The GGUF file; none takes the shipped one.
    pub(crate) model: Option<PathBuf>,
    /// Prompts computed at once.
    pub(crate) slots: u32,
    /// Threads; 0: one per physical core.
    pub(crate) threads: u32,
    /// Context window of one prompt, in tokens.
    pub(crate) context_tokens: u32,
    /// How keys and values are stored.
    pub(crate) cache: CacheType,
    /// Most bytes of keys and values of prefixes that stay computed.
    pub(crate) prefix_bytes_max: u64,
    /// Memory above which a model is refused, in bytes.
    pub(crate) memory_bytes_max: Option<u64>,
    /// Layers that a graphics processor takes.
    pub(crate) gpu_layers: u32,
    /// Prompts with the answers that another model must give before it takes over.
    pub(crate) canaries: Option<PathBuf>,
    /// Longest silence of the model's process before it counts as hung.
    pub(crate) silence: Duration,
}
