//! The engine alone, for its own tests and rigs: frames on stdin and stdout, logs on stderr.

use std::process::ExitCode;
use tidegate_engine::child::{ChildConfig, run};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    match run(ChildConfig::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "engine ended");
            ExitCode::FAILURE
        }
    }
}
