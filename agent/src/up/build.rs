//! Opens everything that a gateway needs, in the order in which a failure costs least, and wires it.

use super::ailing::Ailing;
use super::bridge::{Bridge, Feed, Wait};
use super::certificates::{self, Certificates};
use super::clock;
use super::control::{Control, Desk};
use super::crossing::Crossings;
use super::delivery::{Facts, Pending};
use super::front::Front;
use super::gauges::{Certificate, Happenings, Meter, Painter, Watched};
use super::hub::{Hands, Hub, Tickets};
use super::ingress::Ingress;
use super::judged::Judged;
use super::message::{BridgeFacts, Ears, Report, ToBridge};
use super::notices::{Notices, listen};
use super::onlookers::{Onlookers, is_page};
use super::page::{Page, Turned};
use super::reloads::Reloads;
use super::succession::{self, Serving};
use super::templates::{self, engine_start};
use super::view::{View, gone};
use super::watchdog::Watchdog;
use crate::chosen::{self, NamedBy};
use crate::config::Config;
use crate::engine::{COMMANDS_MAX, Supervisor};
use crate::failure::Failure;
use crate::intake::{Intake, weakened};
use crate::learned::Learned;
use crate::queue::Reaches;
use crate::schema::Checker;
use crate::{calibration, config, trusted_time};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tidegate_broker::{Door, DoorConfig};
use tidegate_core::{Bridge as Cloud, Consent, Dispatcher, Restored, RestoredEscalation, SeenFinal, Site};
use tidegate_engine::model_file::{ModelFile, inspect};
use tidegate_schemas::{CardTask, JobId, LinkState};
use tidegate_spool::{OpenError, Recovered, Spool};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tracing::{info, warn};

/// Prompts and questions that wait for the hub: a burst of every device of a large site.
const INPUTS_MAX: usize = 1024;
/// Reports of the engine that wait for the hub.
const ENGINE_REPORTS_MAX: usize = 256;
/// Orders that wait for the bridge: window, acknowledgements and state fit many times.
const BRIDGE_ORDERS_MAX: usize = 1024;

/// A gateway that is ready to run.
pub(super) struct Gateway {
    pub(super) hub: Hub,
    pub(super) ears: Ears,
    pub(super) tasks: Vec<tokio::task::JoinHandle<()>>,
    pub(super) will: (String, bytes::Bytes),
}

/// Opens, binds and loads.
pub(super) async fn build(config: &Config, stop: watch::Sender<bool>) -> Result<Gateway, Failure> {
    let (serving, model, passed_over) = model(config)?;
    trusted_time::remember(&config.data_dir);
    trusted_time::look();
    let (spool, recovered) = open(config)?;
    let control = Control::bind(&config.control)?;
    let (inputs, input_ear) = mpsc::channel(INPUTS_MAX);
    let (reports, report_ear) = mpsc::unbounded_channel();
    let will = gone(&config.origin, LinkState::Down);
    let bell = Arc::new(Notify::new());
    let rules = Arc::new(config.bridge.as_ref().map(|bridge| bridge.rules.clone()).unwrap_or_default());
    let crossing =
        Crossings { origin: config.origin.clone(), rules: rules.clone(), spool: spool.clone(), bell: bell.clone() };
    let keeper = Arc::new(Ingress { inputs: inputs.clone(), reports: reports.clone(), crossing });
    let front = front(config, keeper, &will).await?;
    let (engine, engine_orders) = mpsc::channel(COMMANDS_MAX);
    let (engine_reports, engine_ear) = mpsc::channel(ENGINE_REPORTS_MAX);
    templates::make_folder(&config.data_dir);
    // One place: the hub lets one model follow another at a time.
    let (successors, successor_ear) = mpsc::channel(1);
    let started = engine_start(config, serving.file.clone());
    let mut supervisor = Supervisor::new(started, engine_orders, engine_reports);
    (supervisor.successors, supervisor.patience) = (successor_ear, config.engine.silence);
    let desk = Desk {
        inputs,
        spool: spool.clone(),
        reaches: Reaches::of(config),
        config: Arc::new(config.clone()),
        succession: Arc::new(Semaphore::new(1)),
    };
    let mut tasks = vec![tokio::spawn(supervisor.run()), tokio::spawn(control.serve(desk.clone()))];
    let turned = Arc::new(Turned::new());
    let page_faults = page(config, &desk, (&reports, &turned), &mut tasks).await;
    listen(&spool, &reports);
    let files = crate::expiry::files(config);
    if !files.is_empty() {
        tasks.push(tokio::spawn(certificates::watch(files, reports.clone())));
    }
    let bridge = config.bridge.clone().map(|bridge| {
        let (orders, order_ear) = mpsc::channel::<ToBridge>(BRIDGE_ORDERS_MAX);
        let feed = Feed::new(spool.clone(), rules, bell);
        let us = (config.origin.clone(), config.data_dir.as_path());
        let bridge = Bridge::new(bridge, us, (order_ear, reports.clone()), feed, will.clone());
        tasks.push(tokio::spawn(bridge.run()));
        orders
    });
    for address in front.addresses() {
        info!(%address, origin = %config.origin, "listening");
    }
    let hands = Hands { spool, front, engine, successors, bridge, reports };
    let mut hub = hub(config, (serving, &model), recovered, hands, stop);
    hub.view.turned = turned;
    hub.view.faults.extend(page_faults.into_iter().chain(passed_over));
    let hangup = signal(SignalKind::hangup()).map_err(|e| Failure::other(format!("SIGHUP cannot be received: {e}")))?;
    let ears = Ears { inputs: input_ear, reports: report_ear, engine: engine_ear, hangup };
    Ok(Gateway { hub, ears, tasks, will })
}

/// The page and what it shows. One that cannot be served is a fault, and the gateway goes on without it.
async fn page(
    config: &Config,
    desk: &Desk,
    (reports, turned): (&mpsc::UnboundedSender<Report>, &Arc<Turned>),
    tasks: &mut Vec<tokio::task::JoinHandle<()>>,
) -> Vec<String> {
    let watched = Watched {
        spool: desk.spool.clone(),
        data_dir: config.data_dir.clone(),
        free_bytes_min: config.spool.free_bytes_min,
        certificates: certificates(config),
        turned: turned.clone(),
    };
    let (painter, views) = Painter::new(desk.inputs.clone(), reports.clone(), watched);
    tasks.push(tokio::spawn(painter.run()));
    let (pages, faults) = Page::open(&config.page, desk, &views, turned).await;
    tasks.extend(pages.into_iter().map(|page| tokio::spawn(page.serve())));
    faults.iter().for_each(|fault| warn!(%fault, "the page is not served there"));
    faults
}

/// Our certificates, by what they are for.
fn certificates(config: &Config) -> Vec<Certificate> {
    let door = config.door.listeners.iter().find_map(|listener| listener.tls.as_ref()).map(|tls| tls.cert.clone());
    let own = |broker: &crate::link::Broker| broker.trust.identity.as_ref().map(|identity| identity.cert.clone());
    let bridge = config.bridge.as_ref().and_then(|bridge| own(&bridge.broker));
    let intake = config.intake.as_ref().and_then(own);
    let page = config.page.tls.as_ref().map(|tls| tls.cert.clone());
    let files = [("door", door), ("bridge", bridge), ("intake", intake), ("page", page)];
    files.into_iter().filter_map(|(part, file)| Some(Certificate { part, file: file? })).collect()
}

/// The door, or the intake in its place.
async fn front(config: &Config, keeper: Arc<Ingress>, will: &(String, bytes::Bytes)) -> Result<Front, Failure> {
    let Some(broker) = config.intake.clone() else {
        let door = Door::start(door_config(config), keeper).await.map_err(Failure::other)?;
        return Ok(Front::Door(door));
    };
    info!(broker = %broker.address, origin = %config.origin, "taking prompts from another broker");
    weakened(&broker.address).iter().for_each(|what| warn!(what, "the intake weakens a promise"));
    Ok(Front::Intake(Intake::start(broker, config.origin.clone(), keeper, will.clone())))
}

fn open(config: &Config) -> Result<(Spool, Recovered), Failure> {
    let opened = Spool::open(&config.data_dir, config.spool);
    opened.map_err(|error| match error {
        OpenError::InUse { path } => {
            Failure::storage(format!("data directory {} is in use by another process", path.display()))
                .next("stop the gateway that has it, or name another with --data-dir")
        }
        other => {
            let next = crate::failure::next_of_store(&other);
            Failure::storage(format!("data directory: {other}")).next(next)
        }
    })
}

/// The model that is to serve: the chosen one if that holds, else the configured one, with the fault that says so.
fn model(config: &Config) -> Result<(Serving, ModelFile, Option<String>), Failure> {
    let mut fault = None;
    match chosen::choice(config) {
        Ok(None) => {}
        Ok(Some(choice)) => match inspect(&choice.path) {
            Ok(model) if model.sha256 == choice.sha256 => {
                let serving = Serving { file: choice.path, named_by: NamedBy::ModelUse, retiring: None };
                return Ok((serving, model, None));
            }
            Ok(_) => fault = Some(succession::passed_over(&choice.path, "it is another file now")),
            Err(error) => fault = Some(succession::passed_over(&choice.path, &error.to_string())),
        },
        Err(why) => fault = Some(why),
    }
    fault.iter().for_each(|fault| warn!(%fault, "the configured model serves"));
    let (file, named_by) = chosen::configured(config)?;
    let model = inspect(&file).map_err(Failure::other)?;
    Ok((Serving { file, named_by, retiring: None }, model, fault))
}

fn door_config(config: &Config) -> DoorConfig {
    let door = config.door.clone();
    DoorConfig {
        users: door.users,
        rights: door.rights,
        reply_topics: door.reply_topics,
        backend: door.backend,
        limits: door.limits,
        anonymous: door.anonymous,
        reserved: config.bridge.iter().flat_map(|bridge| bridge.rules.sources()).map(ToString::to_string).collect(),
        ..DoorConfig::new(config.origin.clone(), door.listeners)
    }
}

fn hub(
    config: &Config,
    (serving, model): (Serving, &ModelFile),
    recovered: Recovered,
    hands: Hands,
    stop: watch::Sender<bool>,
) -> Hub {
    let cloud = if config.bridge.is_some() { Cloud::Configured } else { Cloud::None };
    let site = Site {
        origin: config.origin.clone(),
        default_task: config.default_task.clone(),
        tasks: config.tasks.clone(),
        bridge: cloud,
        limits: config.limits.clone(),
    };
    let mut known = calibration::load(&serving.file, &model.sha256);
    let learned = Learned::open(&config.data_dir, &model.sha256);
    learned.apply(&mut known);
    let dispatcher = Dispatcher::new(site, known, recovered.next_job);
    for (task, why) in dispatcher.unsupported() {
        warn!(%task, %why, "no answer of this task is kept on its promise");
    }
    let mut hub = Hub {
        dispatcher,
        judged: Judged::default(),
        learned,
        succession: None,
        hands,
        tickets: Tickets::default(),
        asking: tidegate_schemas::Reply::default(),
        facts: HashMap::new(),
        ready: HashMap::new(),
        pending: Pending::default(),
        checkers: checkers(config),
        default_task: config.default_task.clone(),
        settle: HashMap::new(),
        retries: VecDeque::new(),
        view: view(config, serving, &recovered, stop),
        meter: Meter::default(),
        onlookers: Onlookers::default(),
        notices: Notices::default(),
        watchdog: Watchdog::new(),
        fatal: None,
    };
    restore(&mut hub, recovered);
    hub
}

fn checkers(config: &Config) -> HashMap<tidegate_schemas::TaskName, Checker> {
    let compiled = config.tasks.iter().filter_map(|(name, task)| {
        // The configuration was refused if a schema does not compile.
        Some((name.clone(), Checker::new(task.spec.schema.as_deref()?).ok()?))
    });
    compiled.collect()
}

fn view(config: &Config, serving: Serving, recovered: &Recovered, stop: watch::Sender<bool>) -> View {
    let card = |(name, task): (&tidegate_schemas::TaskName, &tidegate_core::Task)| CardTask {
        name: name.clone(),
        json: task.spec.schema.is_some(),
        cloud: config.bridge.is_some() && task.consent == Consent::Allowed,
        max_tokens: task.spec.max_tokens,
    };
    let quarantined = recovered.quarantined.as_ref().map(|path| {
        let (salvaged, unreadable) = (recovered.salvaged, recovered.unreadable);
        warn!(path = %path.display(), salvaged, unreadable, "the store was damaged and set aside");
        format!("the store was damaged and set aside: {salvaged} records salvaged, {unreadable} unreadable")
    });
    View {
        origin: config.origin.clone(),
        tasks: config.tasks.iter().map(card).collect(),
        limits: config.limits.clone(),
        spool_limits: config.spool,
        link: if config.bridge.is_some() { LinkState::Down } else { LinkState::None },
        link_since: Instant::now(),
        child: None,
        engine_pid: 0,
        engine_restarts: 0,
        engine_fault: None,
        model: None,
        serving,
        counts: tidegate_spool::Counts::default(),
        misfits: 0,
        data_dir: config.data_dir.clone(),
        ailing: Ailing::default(),
        turned: Arc::new(Turned::new()),
        faults: quarantined.into_iter().collect(),
        started: Instant::now(),
        draining: false,
        stop,
        bridge: BridgeFacts::default(),
        weakened: config.intake.as_ref().map(|broker| weakened(&broker.address)).unwrap_or_default(),
        intake_fault: None,
        certificates: Certificates::default(),
        reloads: Reloads::default(),
        events: BTreeMap::new(),
        happenings: Happenings::default(),
        numbers_crossed: None,
        told: [None, None, None],
    }
}

/// Takes up what was on disk.
fn restore(hub: &mut Hub, recovered: Recovered) {
    let mut escalations: HashMap<JobId, RestoredEscalation> = HashMap::new();
    for record in recovered.escalations {
        let provisional = record.provisional.map(Box::new);
        escalations.insert(record.job, RestoredEscalation { escalation: Box::new(record.escalation), provisional });
    }
    let (prompts, waiting) = (recovered.prompts.len(), recovered.pending.len());
    if prompts > 0 || waiting > 0 {
        info!(prompts, outcomes = waiting, "taken up from the disk");
    }
    let mut jobs = Vec::with_capacity(prompts);
    for record in recovered.prompts {
        let (job, prompt) = (record.job, Arc::new(record.prompt));
        let wait = escalations.contains_key(&job).then(|| Wait::of_earlier_run(record.stamp));
        let facts = Facts { wait, ..hub.facts_of(&prompt, prompt.content_hash(), record.reply) };
        hub.facts.insert(job, facts);
        jobs.push(Restored {
            job,
            device: record.device,
            prompt,
            encoding: record.encoding,
            bytes: record.bytes,
            received: clock::of(&record.stamp),
            attempts: record.attempts,
            escalation: escalations.remove(&job),
        });
    }
    let seen = recovered.seen.into_iter().map(|s| SeenFinal {
        device: s.device,
        id: s.id,
        hash: s.hash,
        job: s.job,
        at: clock::of(&s.stamp),
    });
    for (device, job) in &recovered.pending {
        hub.pending.add(device, *job);
        if is_page(device) {
            // Whoever looked at it is gone with the last run.
            let _ = hub.hands.reports.send(Report::Released(device.clone(), *job));
        }
    }
    let commands = hub.dispatcher.restore(jobs, seen.collect(), clock::now());
    hub.perform(commands);
}

/// Reads the configuration and what the command line says instead.
pub(super) fn configure(args: &crate::cli::UpArgs) -> Result<Config, Failure> {
    let source = args.config.clone().map_or(config::Source::Default, config::Source::File);
    let mut config = config::load(&source)?;
    if let Some(dir) = &args.data_dir {
        config.move_data(dir.clone());
    }
    if let Some(addr) = args.listen {
        config.door.listeners = vec![tidegate_broker::Listener { addr, tls: None }];
    }
    config.page.reveal = crate::queue::Reveal::from(args.reveal);
    if let Some(model) = &args.model {
        config.engine.model = Some(model.clone());
    }
    Ok(config)
}
