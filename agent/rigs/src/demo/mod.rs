//! The main job on loopback: a gateway, a central broker behind a link that breaks, a worker, eight devices.

mod account;
mod crew;
mod interrupt;
mod plan;
mod stage;
mod stay;
mod watch;

use crate::models::shipped_model;
use crate::prompts::{self, Line};
use anyhow::Context as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of the demo.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// JSON lines with `prompt` and, where known, `intent` or `answer`; else the shipped set.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Keep everything running at the end, for a person to play with.
    #[arg(long)]
    stay: bool,
    /// Where the drawing of the queues goes; else demo-queues.html beside this program.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Prompts per second over all devices.
    #[arg(long, default_value_t = 8.0)]
    rate: f64,
    /// The gateway's model; else the shipped tide-edge.gguf.
    #[arg(long, value_name = "FILE")]
    edge: Option<PathBuf>,
    /// The worker's model; else the shipped tide-cloud.gguf.
    #[arg(long, value_name = "FILE")]
    cloud: Option<PathBuf>,
}

/// What the demo plays with.
struct Cast {
    lines: Vec<Line>,
    edge: PathBuf,
    cloud: PathBuf,
}

impl Options {
    fn cast(&self) -> anyhow::Result<Cast> {
        let model = |chosen: &Option<PathBuf>, shipped: &str| match chosen {
            Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display())),
            None => shipped_model(shipped),
        };
        Ok(Cast {
            lines: self.prompts.as_deref().map_or_else(|| Ok(prompts::shipped()), prompts::read)?,
            edge: model(&self.edge, "tide-edge.gguf")?,
            cloud: model(&self.cloud, "tide-cloud.gguf")?,
        })
    }

    fn html(&self) -> anyhow::Result<PathBuf> {
        let beside = || Ok(crate::process::own_binary()?.with_file_name("demo-queues.html"));
        self.html.clone().map_or_else(beside, Ok)
    }
}

/// Runs the demo.
pub(crate) fn run(options: Options) -> anyhow::Result<ExitCode> {
    let cast = options.cast()?;
    let interrupts = interrupt::arm()?;
    let mut stage = stage::Stage::set(&cast)?;
    let played = stage.play(&cast, &options, &interrupts)?;
    let html = options.html()?;
    std::fs::write(&html, crate::draw::page("Queue depths of the gateway", &played.samples, Some(played.outage)))
        .with_context(|| format!("cannot write {}", html.display()))?;
    if !options.stay {
        // The lone models get the machine to themselves.
        drop(stage);
        interrupts.end_at_once();
        return account::give(&cast, &played, &options);
    }
    let code = account::give(&cast, &played, &options)?;
    stay::wait(&stage, &interrupts)?;
    Ok(code)
}
