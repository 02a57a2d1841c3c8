//! `tidegate queue`: what is kept, looked at and changed, through the control socket of a running gateway or in the
//! store of a stopped one. Text of prompts and answers is shown only where it is asked for.

mod request;
mod rows;
mod running;
mod stopped;
mod words;

pub(crate) use request::{Reaches, Request};
pub(crate) use rows::{Reveal, counts, full, room, row};
pub(crate) use stopped::{ESCALATION_AGAIN, absent, again, page};

use crate::cli::{QueueArgs, QueueCommand};
use crate::config;
use crate::failure::Failure;
use crate::terminal::print;
use serde_json::Value;
use std::path::PathBuf;
use tidegate_spool::QueueClass;

/// Where a queue may be.
struct Places {
    /// Control sockets to try.
    sockets: Vec<PathBuf>,
    /// The configuration, where there is one that can be read.
    config: Result<config::Config, Failure>,
}

/// Whoever has the queue: asked one request at a time.
trait Keeper {
    fn ask(&mut self, request: Request) -> Result<Value, Failure>;
}

/// Runs the command.
pub(crate) fn run(args: &QueueArgs) -> Result<(), Failure> {
    let places = places(args);
    let mut keeper: Box<dyn Keeper> = match running::find(&places.sockets) {
        Some(running) => Box::new(running),
        None => Box::new(stopped::Stopped::open(places.config?)?),
    };
    match &args.command {
        QueueCommand::Ls { class: None, .. } => show(args, &keeper.ask(Request::Counts)?, words::counts),
        QueueCommand::Ls { class: Some(class), limit, after } => {
            let request = Request::Ls { class: *class, after: *after, limit: *limit };
            show(args, &keeper.ask(request)?, words::list)
        }
        QueueCommand::Show { class, number, reveal } => {
            let request = Request::Show { class: *class, number: *number, reveal: *reveal };
            show(args, &keeper.ask(request)?, words::entry)
        }
        QueueCommand::Retry { number } => show(args, &keeper.ask(Request::Retry { number: *number })?, words::done),
        QueueCommand::Drop { class, number } => {
            show(args, &keeper.ask(Request::Drop { class: *class, number: *number })?, words::done)
        }
        QueueCommand::Export { class, reveal } => all(keeper.as_mut(), *class, *reveal),
    }
}

/// `--config` and `--data-dir` say where; else the configuration that `up` would take.
fn places(args: &QueueArgs) -> Places {
    let source = args.config.clone().map_or(config::Source::Default, config::Source::File);
    let mut config = config::load(&source);
    if let (Ok(config), Some(dir)) = (&mut config, &args.data_dir) {
        config.move_data(dir.clone());
    }
    let sockets = match (&args.control, &config) {
        (Some(socket), _) => vec![socket.clone()],
        (None, Ok(config)) => vec![config.control.clone()],
        (None, Err(_)) => config::control_candidates(),
    };
    Places { sockets, config }
}

fn show(args: &QueueArgs, answer: &Value, words: fn(&Value) -> String) -> Result<(), Failure> {
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(Failure::other(error));
    }
    print(&if args.json { format!("{answer}\n") } else { words(answer) })
}

/// One JSON object per line, page by page, so that a large class is never in memory as a whole.
fn all(keeper: &mut dyn Keeper, class: QueueClass, reveal: bool) -> Result<(), Failure> {
    let (mut after, mut left_out) = (0, 0);
    loop {
        let answer = keeper.ask(Request::Export { class, after, reveal })?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(Failure::other(error));
        }
        for entry in answer.get("entries").and_then(Value::as_array).into_iter().flatten() {
            print(&format!("{entry}\n"))?;
        }
        left_out += answer.get("left_out").and_then(Value::as_u64).unwrap_or(0);
        match answer.get("next").and_then(Value::as_u64) {
            Some(next) => after = next,
            None => break,
        }
    }
    if left_out > 0 {
        eprintln!("tidegate: {left_out} entries were left out, their text may not leave this host");
    }
    Ok(())
}
