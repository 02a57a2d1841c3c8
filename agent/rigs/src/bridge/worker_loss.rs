//! The rig `worker-loss`: no worker for a while, workers killed in mid-work, the central broker killed and started again
//! empty, resolutions lost on the way. Every escalation comes to exactly one outcome within two leases of a worker being
//! there.

use super::peer::Peer;
use crate::link::Protocol;
use crate::models::shipped_model;
use crate::probe::{Probe, disk_dir};
use crate::process::Process;
use crate::report::{Check, Common, finish};
use crate::world::{Gateway, Proxy, Setup, start_worker};
use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tidegate_schemas::{Frame, PromptId};
use tokio::time::{sleep, timeout};

/// The lease that the gateway is told, in ms.
const LEASE_MS: u64 = 5_000;
/// Escalations of one round.
const PROMPTS: usize = 3;
/// Longest wait for the outcomes of a round; what has none by then is lost.
const ROUND_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for a worker that is ready.
const WORKER_LIMIT: Duration = Duration::from_secs(60);
/// Extends `[tasks.intent]`, the last section before it: no local answer is ever sure enough.
const MORE: &str = "threshold = 1.0\n\n[limits]\nlease_ms_min = 5000\ncloud_wait_ms = 3600000\n";

/// Options of the rig.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Seed of the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds.
    #[arg(long)]
    rounds: Option<usize>,
}

/// What happens in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    NoWorker,
    WorkerKilled,
    BrokerKilled,
    ResolutionsLost,
}

const FAULTS: [Fault; 4] = [Fault::NoWorker, Fault::WorkerKilled, Fault::BrokerKilled, Fault::ResolutionsLost];

/// Runs the rig.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let rounds = options.rounds.unwrap_or(if options.common.short { 6 } else { 200 });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let found = runtime.block_on(async {
        let mut rig = Rig::start(options.seed).await?;
        for round in 0..rounds {
            rig.round(round).await.with_context(|| format!("round {round}"))?;
        }
        anyhow::Ok(rig.found)
    })?;
    println!("seed {}, {rounds} rounds of {PROMPTS} escalations: {:?}", options.seed, found.faults);
    let checks = [
        Check::at_most("escalations without outcome", found.lost as f64, 0.0, "escalations"),
        Check::at_most("second outcomes", found.second as f64, 0.0, "outcomes"),
        Check::at_most("last outcome after a worker was there", found.slowest_ms, 2.0 * LEASE_MS as f64, "ms"),
    ];
    finish("worker-loss", &options.common, &checks, &serde_json::json!({ "seed": options.seed, "rounds": rounds }))
}

#[derive(Default)]
struct Found {
    lost: usize,
    second: usize,
    slowest_ms: f64,
    faults: BTreeMap<Fault, usize>,
}

struct Rig {
    random: StdRng,
    dir: tempfile::TempDir,
    central: Peer,
    /// Between the worker and the central broker.
    proxy: Proxy,
    worker: Option<Process>,
    probe: Probe,
    /// Outcomes of each id.
    outcomes: BTreeMap<PromptId, usize>,
    found: Found,
    _gateway: Gateway,
}

impl Rig {
    async fn start(seed: u64) -> anyhow::Result<Self> {
        let dir = disk_dir("worker-loss")?;
        let central = Peer::start(dir.path(), "central", "")?;
        let proxy = Proxy::start(dir.path(), central.address)?;
        let model = shipped_model("tide-edge.gguf")?;
        let setup = Setup { model: Some(&model), bridge: Some(central.address), more: MORE };
        let gateway = Gateway::start(dir.path(), &setup)?;
        let probe = Probe::connect(&gateway.door, "local-probe", Protocol::V5).await?;
        Ok(Self {
            random: StdRng::seed_from_u64(seed),
            dir,
            central,
            proxy,
            worker: None,
            probe,
            outcomes: BTreeMap::new(),
            found: Found::default(),
            _gateway: gateway,
        })
    }

    async fn round(&mut self, round: usize) -> anyhow::Result<()> {
        let fault = FAULTS[self.random.random_range(0..FAULTS.len())];
        *self.found.faults.entry(fault).or_default() += 1;
        if fault == Fault::NoWorker {
            self.worker = None;
        } else {
            self.hire().await?;
        }
        if fault == Fault::ResolutionsLost {
            self.proxy.say("drop")?;
        }
        for number in 0..PROMPTS {
            let id: PromptId = format!("r{round}-{number}").parse()?;
            let payload = self.probe.payload(&id, &format!("seventeen grommets whistle at {round} {number}"))?;
            self.outcomes.insert(id, 0);
            self.probe.ask(payload).await?;
        }
        let pause = Duration::from_millis(self.random.random_range(50..2_000));
        self.listen(pause).await?;
        match fault {
            Fault::NoWorker => {}
            Fault::WorkerKilled => self.worker.iter_mut().for_each(Process::kill),
            Fault::BrokerKilled => self.central.revive()?,
            Fault::ResolutionsLost => {
                self.proxy.say("heal")?;
                self.proxy.say("reset")?;
            }
        }
        if fault != Fault::ResolutionsLost && fault != Fault::BrokerKilled {
            self.worker = None;
        }
        self.hire().await?;
        self.finish().await
    }

    /// A worker that is ready, if there is none.
    async fn hire(&mut self) -> anyhow::Result<()> {
        if self.worker.is_some() {
            return Ok(());
        }
        let model = shipped_model("tide-edge.gguf")?;
        let worker = start_worker(self.dir.path(), self.proxy.address, &model)?;
        self.worker = Some(worker);
        ready(self.dir.path(), self.proxy.address).await
    }

    /// Waits for the outcomes of all that was asked, from a worker being there.
    async fn finish(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.outcomes.values().any(|count| *count == 0) {
            if begin.elapsed() > ROUND_LIMIT {
                break;
            }
            self.listen(Duration::from_millis(100)).await?;
        }
        self.found.slowest_ms = self.found.slowest_ms.max(begin.elapsed().as_secs_f64() * 1e3);
        // What comes late comes now: a second outcome would be one.
        self.listen(Duration::from_millis(200)).await?;
        self.found.lost += self.outcomes.values().filter(|count| **count == 0).count();
        self.found.second += self.outcomes.values().map(|count| count.saturating_sub(1)).sum::<usize>();
        self.outcomes.clear();
        Ok(())
    }

    /// Counts outcomes for so long.
    async fn listen(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + time;
        loop {
            let frame = match tokio::time::timeout_at(until, self.probe.frame()).await {
                Ok(frame) => frame?.1,
                Err(_) => return Ok(()),
            };
            let is_outcome = match &frame {
                Frame::Answer(answer) => !answer.provisional,
                Frame::Error(_) => true,
                Frame::Accepted(_) | Frame::Token(_) => false,
            };
            if !is_outcome {
                continue;
            }
            match frame.id().and_then(|id| self.outcomes.get_mut(id)) {
                Some(count) => *count += 1,
                // An outcome of an earlier round, counted there: a second one.
                None => self.found.second += 1,
            }
        }
    }
}

/// Waits until the worker's log says that it works.
async fn ready(dir: &Path, at: SocketAddr) -> anyhow::Result<()> {
    let log = dir.join("worker.log");
    let look = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("the engine is ready") && text.contains("connected to the central broker") {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(WORKER_LIMIT, look).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("no worker is ready at {at} after {} s", WORKER_LIMIT.as_secs()),
    }
}
