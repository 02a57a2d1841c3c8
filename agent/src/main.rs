//! Tidegate: language models on the gateway. The life of the process: options, logging, one command, an exit status.

mod ask;
mod bridge_tools;
mod calibration;
mod cli;
mod config;
mod doctor;
mod engine;
mod failure;
mod intake;
mod link;
mod log;
mod lookup;
mod memory;
mod queue;
mod runtime;
mod schema;
mod status;
mod terminal;
mod trusted_time;
mod up;
mod worker;

use clap::Parser;
use cli::{Cli, Command, ConfigCommand};
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The first caller decides; nothing before this line uses TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Up(_)) {
        memory::settle();
    }
    log::start(&cli.log);
    tidegate_engine::child::hide_panics();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Engine => engine::run(),
        Command::Config(ConfigCommand::Check { file }) => config::load(&config::Source::File(file)).map(drop),
        Command::Config(ConfigCommand::Example) => terminal::print(&config::example()),
        Command::Status(args) => status::run(&args),
        Command::Queue(args) => queue::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bridge(command) => bridge_tools::run(&command),
        Command::Up(args) => runtime::start()?.block_on(up::run(&args)),
        Command::Worker(args) => runtime::start()?.block_on(worker::run(&args)),
        Command::Ask(args) => runtime::start()?.block_on(ask::run(&args)),
    }
}
