//! Tidegate: language models on the gateway. The life of the process: options, logging, one command, an exit status.

mod ask;
mod bridge_tools;
mod calibrate;
mod calibration;
mod certs;
mod chosen;
mod cli;
mod config;
mod doctor;
mod engine;
mod expiry;
mod explain;
mod failure;
mod intake;
mod learned;
mod link;
mod log;
mod lookup;
mod memory;
mod model;
mod queue;
mod room;
mod runtime;
mod schema;
mod status;
mod terminal;
mod trace;
mod trusted_time;
mod up;
mod worker;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand, LogArgs};
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The first caller decides; nothing before this line uses TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Up(_)) {
        memory::settle();
    }
    let daemon = matches!(cli.command, Command::Up(_) | Command::Worker(_) | Command::Engine { .. });
    let json = cli.command.json();
    let voice = if daemon { log::Voice::Daemon } else { log::Voice::Command };
    log::start(&LogArgs { log_json: cli.log.log_json || daemon && json, ..cli.log }, voice);
    tidegate_engine::child::hide_panics();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match json {
                true => eprintln!("{}", failure.json()),
                false => eprintln!("tidegate: {failure}"),
            }
            ExitCode::from(failure.status())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Engine { instructions: false } => engine::run(),
        Command::Engine { instructions: true } => engine::instructions(),
        Command::Config(ConfigCommand::Check { file, json }) => config::check(file, json),
        Command::Config(ConfigCommand::Example { json: false }) => terminal::print(&config::example()),
        Command::Config(ConfigCommand::Example { json: true }) => terminal::print(&config::example_json()),
        Command::Certs(args) => certs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Queue(args) => queue::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bridge(command) => bridge_tools::run(&command),
        Command::Up(args) => runtime::start()?.block_on(up::run(&args)),
        Command::Worker(args) => runtime::start()?.block_on(worker::run(&args)),
        Command::Ask(args) => runtime::start()?.block_on(ask::run(&args)),
    }
}
