//! Where what takes long to make is kept between runs of the rigs: peers and models.

use crate::engine::make::make;
use crate::engine::shapes::{Quant, Shape, name_of};
use anyhow::Context as _;
use std::path::PathBuf;

/// `tidegate/NAME` in the user's cache folder, which is made where it is missing.
pub(crate) fn folder(name: &str) -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = given.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    let folder = cache.join("tidegate").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// A model of this shape, made where it is missing.
pub(crate) fn model(shape: Shape, quant: Quant) -> anyhow::Result<PathBuf> {
    let path = folder("models")?.join(format!("{}-{}.gguf", name_of(&shape), name_of(&quant)));
    if !path.is_file() {
        eprintln!("making {} of random weights", path.display());
        make(&path, shape, quant)?;
    }
    Ok(path)
}
