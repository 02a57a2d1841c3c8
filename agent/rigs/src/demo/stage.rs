//! The course of the demo: start everything, publish, cut the link, reset it, mend it, wait for every outcome.

use super::crew::Crew;
use super::interrupt::Interrupts;
use super::plan::{MENDED_AT, RESET_AT, SILENT_FROM, at, device_of, prompt};
use super::watch::Watch;
use super::{Cast, Options};
use crate::clock::now_us;
use crate::device::Order;
use crate::draw::{Sample, Span};
use crate::ledger::{Entry, Tally};
use crate::process::Process;
use crate::world::{Central, Gateway, Proxy, Setup, start_worker};
use anyhow::{Context as _, bail};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for outcomes after the last publish: longer than every deadline of the plan, and than the time that a
/// prompt without one waits for the cloud.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);
/// How long to listen on after the last outcome, so that a second one would be heard.
const LISTEN_ON: Duration = Duration::from_secs(3);
/// How long the link may take to be up before the first prompt.
const LINK_LIMIT: Duration = Duration::from_secs(20);

/// Everything that runs. Fields end in this order: first who asks, last what is asked.
pub(super) struct Stage {
    crew: Crew,
    pub(super) gateway: Gateway,
    _worker: Process,
    pub(super) proxy: Proxy,
    pub(super) central: Central,
    dir: Folder,
}

/// The demo's directory; stays when something failed, since the logs are in it.
struct Folder(Option<TempDir>);

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("logs are in {}", dir.keep().display());
        }
    }
}

/// What happened.
pub(super) struct Played {
    /// Every prompt as its device saw it, by line.
    pub(super) entries: Vec<Entry>,
    /// The devices' sums.
    pub(super) tally: Tally,
    /// The gateway's queues.
    pub(super) samples: Vec<Sample>,
    /// When the link was cut.
    pub(super) outage: Span,
    /// Bytes over the link, from and to the gateway.
    pub(super) link_bytes: (u64, u64),
}

impl Stage {
    /// Starts all processes.
    pub(super) fn set(cast: &Cast) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("tidegate-demo-").tempdir().context("no temporary directory")?;
        let result = Self::set_in(cast, &folder);
        let path = folder.path().to_owned();
        match result {
            Ok((crew, gateway, worker, proxy, central)) => {
                Ok(Self { crew, gateway, _worker: worker, proxy, central, dir: Folder(Some(folder)) })
            }
            Err(error) => {
                let _ = folder.keep();
                Err(error.context(format!("the demo could not start; logs are in {}", path.display())))
            }
        }
    }

    fn set_in(cast: &Cast, folder: &TempDir) -> anyhow::Result<(Crew, Gateway, Process, Proxy, Central)> {
        let dir = folder.path();
        let central = Central::start(dir)?;
        println!("central broker  mosquitto at {}", central.address);
        let proxy = Proxy::start(dir, central.address)?;
        println!("link            a proxy at {} that can be cut", proxy.address);
        let worker = start_worker(dir, central.address, &cast.cloud)?;
        println!("worker          tidegate worker with {}", cast.cloud.display());
        let setup = Setup { model: Some(&cast.edge), bridge: Some(proxy.address), more: "" };
        let gateway = Gateway::start(dir, &setup)?;
        println!("gateway         tidegate up at {} with {}", gateway.door.address, cast.edge.display());
        let crew = Crew::start(&gateway)?;
        println!("devices         8, MQTT 3.1.1 and 5, JSON and CBOR in turn\n");
        Ok((crew, gateway, worker, proxy, central))
    }

    /// Plays the whole course; on a failure the logs stay.
    pub(super) fn play(&mut self, cast: &Cast, options: &Options, interrupts: &Interrupts) -> anyhow::Result<Played> {
        let result = self.course(cast, options, interrupts);
        if result.as_ref().is_err_and(|error| !error.is::<Interrupted>())
            && let Some(dir) = self.dir.0.take()
        {
            eprintln!("logs are in {}", dir.keep().display());
        }
        result
    }

    fn course(&mut self, cast: &Cast, options: &Options, interrupts: &Interrupts) -> anyhow::Result<Played> {
        self.await_link()?;
        let begin_us = now_us();
        let watch = Watch::start(self.gateway.control.clone(), begin_us);
        let mut screen = Screen::new(cast.lines.len(), options.rate);
        let outage = self.publish_all(cast, options, interrupts, &mut screen, begin_us)?;
        self.settle(interrupts, &mut screen)?;
        let tally = self.crew.hear(LISTEN_ON)?;
        let samples = watch.stop();
        let entries = self.crew.report()?;
        Ok(Played { entries, tally, samples, outage, link_bytes: self.proxy.bytes()? })
    }

    /// Waits until the gateway has the link: bytes of the broker's CONNACK came down.
    fn await_link(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + LINK_LIMIT;
        while self.proxy.bytes()?.1 == 0 {
            self.gateway.process.check_alive()?;
            if Instant::now() > end {
                bail!("the gateway did not reach the central broker within {} s", LINK_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn publish_all(
        &mut self,
        cast: &Cast,
        options: &Options,
        interrupts: &Interrupts,
        screen: &mut Screen,
        begin_us: u64,
    ) -> anyhow::Result<Span> {
        let count = cast.lines.len();
        let (silent, reset, mended) = (at(SILENT_FROM, count), at(RESET_AT, count), at(MENDED_AT, count));
        let mut outage = Span { from_s: 0.0, to_s: 0.0 };
        let pause = Duration::from_secs_f64(1.0 / options.rate);
        for (number, line) in cast.lines.iter().enumerate() {
            let at_s = (now_us() - begin_us) as f64 / 1e6;
            if number == silent {
                self.change("silence", screen, "the link goes silent: no FIN, no RST, nothing arrives")?;
                outage.from_s = at_s;
            }
            if number == reset {
                self.change("reset", screen, "every connection over the link is reset; new ones meet silence")?;
            }
            if number == mended {
                self.change("heal", screen, "the link is mended")?;
                outage.to_s = at_s;
            }
            let order = Order::Publish { line: u32::try_from(number)?, prompt: prompt(number, line) };
            self.crew.publish(device_of(number), &order)?;
            let tally = self.crew.hear(pause)?;
            screen.show(tally, number + 1);
            check(interrupts)?;
        }
        Ok(outage)
    }

    fn change(&mut self, word: &str, screen: &mut Screen, what: &str) -> anyhow::Result<()> {
        screen.say(what);
        match self.proxy.say(word)?.as_str() {
            "ok" => Ok(()),
            answer => bail!("the proxy answered {answer:?} to {word:?}"),
        }
    }

    fn settle(&mut self, interrupts: &Interrupts, screen: &mut Screen) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLE_LIMIT;
        while self.crew.tally().open() > 0 && Instant::now() < end {
            let tally = self.crew.hear(Duration::from_millis(250))?;
            screen.show(tally, screen.all);
            self.gateway.process.check_alive()?;
            check(interrupts)?;
        }
        screen.end();
        Ok(())
    }
}

fn check(interrupts: &Interrupts) -> anyhow::Result<()> {
    if interrupts.came() { Err(Interrupted.into()) } else { Ok(()) }
}

/// Somebody wanted the demo to end.
#[derive(Debug)]
struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Tells how far the demo is: a line that changes on a terminal, one line per event elsewhere.
struct Screen {
    all: usize,
    begin: Instant,
    rate: f64,
    live: bool,
}

impl Screen {
    fn new(all: usize, rate: f64) -> Self {
        Self { all, begin: Instant::now(), rate, live: std::io::stdout().is_terminal() }
    }

    fn say(&self, what: &str) {
        let start = if self.live { "\r\x1b[K" } else { "" };
        println!("{start}{:>6.1} s  {what}", self.begin.elapsed().as_secs_f64());
    }

    fn show(&self, tally: Tally, published: usize) {
        if !self.live {
            return;
        }
        let settled = tally.settled as usize;
        let spent = self.begin.elapsed().as_secs_f64();
        // Outcomes cannot come faster than prompts go out, nor all at once at the end.
        let to_publish = (self.all - published) as f64 / self.rate;
        let to_settle = spent / settled.max(1) as f64 * (published - settled.min(published)) as f64;
        let left = to_publish.max(to_settle);
        print!(
            "\r\x1b[K{spent:>6.1} s  {published} published, {settled} of {} have their outcome, {} provisional; about \
             {left:.0} s left",
            self.all, tally.provisional
        );
        // A terminal that went away is no reason to stop.
        let _ = std::io::stdout().flush();
    }

    fn end(&self) {
        self.say("every prompt has been waited for\n");
    }
}
