//! `make-gguf`: a model of random weights in the shape of a real one, for rigs that measure speed and memory.

use crate::engine::shapes::{self, Quant, Shape, name_of};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of the command.
#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// The model whose layers, widths and vocabulary it gets.
    #[arg(long)]
    shape: Shape,
    /// How its weights are stored.
    #[arg(long)]
    quant: Quant,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the file and says what it is.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let bytes = make(&options.out, options.shape, options.quant)?;
    let (shape, quant) = (name_of(&options.shape), name_of(&options.quant));
    println!("{}: {shape} {quant}, {:.1} MB", options.out.display(), bytes as f64 / 1e6);
    println!("Its weights are random: what it says has no sense; speed and memory do not depend on the values.");
    Ok(ExitCode::SUCCESS)
}

/// Writes a model beside its place and then puts it there, so that a file that is there is whole; its size in bytes.
pub(crate) fn make(path: &Path, shape: Shape, quant: Quant) -> anyhow::Result<u64> {
    let part = path.with_extension("part");
    shapes::write(&part, shape, quant)?;
    std::fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len())
}
