//! Writes what belongs to the command line besides the program: manual pages and completions. A program of its own, from
//! the very definitions of `tidegate`, so that what a gateway installs does not carry their generators.
//!
//! `tidegate-pages FOLDER` writes `man1/*.1`, `bash/tidegate`, `zsh/_tidegate` and `fish/tidegate.fish`.
#![allow(dead_code, unused_imports, reason = "only the definitions are used, not the values that are parsed")]

#[path = "../../../src/cli.rs"]
mod cli;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use std::path::{Path, PathBuf};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: tidegate-pages FOLDER")?;
    let man = made(&folder, "man1")?;
    clap_mangen::generate_to(cli::Cli::command(), &man).context("cannot write manual pages")?;
    for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let place = made(&folder, name)?;
        let written = generate_to(shell, &mut cli::Cli::command(), "tidegate", &place);
        let written = written.with_context(|| format!("cannot write completions for {name}"))?;
        // bash-completion looks for the name of the program.
        if shell == Shell::Bash {
            std::fs::rename(written, place.join("tidegate")).context("cannot name the completions of bash")?;
        }
    }
    Ok(())
}

fn made(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    Ok(place)
}
