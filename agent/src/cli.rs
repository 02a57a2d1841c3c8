//! The command line: what can be asked of the binary, and with which options.

#[path = "cli/certs.rs"]
mod certs;
#[path = "cli/model.rs"]
mod model;
#[cfg(test)]
#[path = "cli/tree.rs"]
mod tree;

pub(crate) use certs::{CertsArgs, CertsCommand};
pub(crate) use model::{ModelArgs, ModelCommand};

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use tidegate_spool::QueueClass;

/// Language models on the gateway, tide in or out.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is logged, and how. Logs go to stderr and never hold text of prompts or answers.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Log filter, such as `debug` or `tidegate=trace`; else RUST_LOG, else `info`.
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Log one JSON object per line.
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway.
    Up(UpArgs),
    /// Run a worker for escalations, beside the central broker.
    Worker(WorkerArgs),
    /// Run the model; started by `up` and `worker`, speaks frames on stdin and stdout.
    #[command(hide = true)]
    Engine {
        /// Print the instruction sets that the build uses, and end.
        #[arg(long)]
        instructions: bool,
    },
    /// Ask a gateway and print the answer as it comes.
    Ask(AskArgs),
    /// Say how the gateway is.
    Status(StatusArgs),
    /// Look at what is kept, and change it.
    Queue(QueueArgs),
    /// Check this machine and say what to do about what is wrong.
    Doctor(DoctorArgs),
    /// Say where a topic crosses to, or whether the central broker can be reached.
    #[command(subcommand)]
    Bridge(BridgeCommand),
    /// Let another model serve.
    Model(ModelArgs),
    /// Say why an answer took the way it took.
    Explain(ExplainArgs),
    /// Fit a task's confidence from labelled answers.
    Calibrate(CalibrateArgs),
    /// Check a configuration file, or print a commented one.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make certificates of a private CA, for who has none.
    Certs(CertsArgs),
}

impl Command {
    /// Whether JSON was asked for: then a failure is JSON, too.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Engine { .. } => false,
            Self::Up(args) => args.json,
            Self::Worker(args) => args.json,
            Self::Calibrate(args) => args.json,
            Self::Ask(args) => args.json,
            Self::Status(args) => args.json,
            Self::Queue(args) => args.json,
            Self::Doctor(args) => args.json,
            Self::Bridge(BridgeCommand::Inspect { json, .. } | BridgeCommand::Test { json, .. }) => *json,
            Self::Config(ConfigCommand::Check { json, .. } | ConfigCommand::Example { json }) => *json,
            Self::Certs(args) => args.json,
            Self::Explain(args) => args.json,
            Self::Model(args) => args.json,
        }
    }
}

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Configuration file; without it /etc/tidegate/tidegate.toml if there, else the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory, instead of the configured one.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address to listen at, instead of the configured ones.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Model file (GGUF), instead of the configured one.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Show text of devices' prompts on the page, in dead letters.
    #[arg(long)]
    pub(crate) reveal: bool,
    /// Log JSON, one object per line, and say a failure as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a broker is and who we are to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct LinkArgs {
    /// CA certificates that the broker's certificate must lead to (PEM); else the system's.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate chain (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Our private key (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// User name.
    #[arg(long, requires = "password_file")]
    pub(crate) user: Option<String>,
    /// File with the password in its first line.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Options of `worker`.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    /// Central broker: mqtt://HOST:PORT or mqtts://HOST:PORT; without a port 1883 or 8883.
    #[arg(long)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// Model file (GGUF); else tide-cloud.gguf of the shipped models.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// Escalations answered at once.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) slots: u32,
    /// Threads of the model; 0 takes one per core.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub(crate) threads: u32,
    /// Context window of one escalation, in tokens; 0 takes the model's own, at most 4096.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=131_072))]
    pub(crate) context_tokens: u32,
    /// MQTT client id; else one made of host name and process id.
    #[arg(long)]
    pub(crate) client_id: Option<String>,
    /// Log JSON, one object per line, and say a failure as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `ask`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    /// What to ask; left out together with --id, it only looks up what became of that prompt.
    #[arg(required_unless_present = "id")]
    pub(crate) text: Option<String>,
    /// Id of the prompt; else a random one. A prompt that was asked before with this id is not asked twice.
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Task template of the gateway; else its default task.
    #[arg(long)]
    pub(crate) task: Option<String>,
    /// Device name to ask as, or whose prompt to look up; else the user name, else one of this process.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Print the gateway's frames as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// The prompt must not leave the gateway.
    #[arg(long)]
    pub(crate) local: bool,
    /// Time to live of the prompt, in milliseconds.
    #[arg(long, value_name = "MS")]
    pub(crate) deadline_ms: Option<u64>,
    /// Gateway: mqtt://HOST:PORT or mqtts://HOST:PORT; without a port 1883 or 8883.
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// Site of the gateway; else found by its card.
    #[arg(long, requires = "gateway")]
    pub(crate) site: Option<String>,
    /// Name of the gateway; else found by its card.
    #[arg(long, requires = "site")]
    pub(crate) gateway: Option<String>,
    /// Show the text, too, of what is looked up; for the gateway's user and root.
    #[arg(long, requires = "id", conflicts_with = "text")]
    pub(crate) reveal: bool,
    /// Control socket of the gateway, to look something up.
    #[arg(long, value_name = "SOCKET", requires = "id", conflicts_with = "text")]
    pub(crate) control: Option<PathBuf>,
    /// Seconds to wait for the answer.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub(crate) timeout: u64,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Control socket of the gateway.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `queue`.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// Configuration file; else as `up` finds it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory of a stopped gateway, instead of the configured one.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Control socket of a running gateway, instead of the configured one.
    #[arg(long, global = true, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: QueueCommand,
}

/// What to do with a queue. Classes are prompts, escalations, outcomes, telemetry, dead.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// How much is in each class, or what is in one.
    Ls {
        /// The class.
        class: Option<QueueClass>,
        /// Entries at most.
        #[arg(long, default_value_t = 50)]
        limit: u64,
        /// Only entries above this number.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// One entry.
    Show {
        /// The class.
        class: QueueClass,
        /// The number of the entry.
        number: u64,
        /// With its text.
        #[arg(long)]
        reveal: bool,
    },
    /// Try a dead letter again: a prompt under a new id, a forwarded message as it is.
    Retry {
        /// The number of the letter.
        number: u64,
    },
    /// Drop an entry. A dropped prompt gets the outcome `cancelled`, a dropped escalation the local answer.
    Drop {
        /// The class.
        class: QueueClass,
        /// The number of the entry.
        number: u64,
    },
    /// Print a class, one JSON object per line, without what may not leave this host.
    Export {
        /// The class.
        class: QueueClass,
        /// With text.
        #[arg(long)]
        reveal: bool,
    },
}

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Configuration file; without it /etc/tidegate/tidegate.toml if there, else the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out what computes or waits: speed of the model, round trip, central broker.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// What to ask about the bridge.
#[derive(Debug, Subcommand)]
pub(crate) enum BridgeCommand {
    /// Say which rule takes a topic, and where to; exit status 1 if it stays.
    Inspect {
        /// A topic name as a device publishes it.
        topic: String,
        /// Configuration file; without it /etc/tidegate/tidegate.toml if there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Connect to every address of the central broker and send a message there and back; exit status 1 if none works.
    Test {
        /// Configuration file; without it /etc/tidegate/tidegate.toml if there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Longest wait for each address, in seconds.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
        timeout: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Number of the job, as the log names it.
    #[arg(value_name = "ID")]
    pub(crate) job: u64,
    /// Control socket of the gateway.
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `calibrate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CalibrateArgs {
    /// The task.
    #[arg(long)]
    pub(crate) task: String,
    /// Labelled prompts: JSON lines with `prompt` and `answer` (a text or an object) or `intent`.
    #[arg(long, value_name = "FILE", required_unless_present = "from_escalations")]
    pub(crate) data: Option<PathBuf>,
    /// Fit from what the cloud answered while the gateway ran.
    #[arg(long, conflicts_with = "data")]
    pub(crate) from_escalations: bool,
    /// Configuration file with the task; else the packaged one, else the defaults.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Model file (GGUF), instead of the configured one.
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Option<PathBuf>,
    /// The cloud's model file (GGUF): what a hop is worth is measured with it.
    #[arg(long, value_name = "FILE")]
    pub(crate) cloud_model: Option<PathBuf>,
    /// Calibration file to write; else the one beside the model.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write the diagrams as an HTML page.
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say every mistake in a configuration file; exit status 64 if there is one.
    Check {
        /// The file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a configuration with every key, its default, its unit and why.
    Example {
        /// Print JSON: every key with its default, what is allowed, and why.
        #[arg(long)]
        json: bool,
    },
}
