//! Rigs about the engine's speed, beside llama.cpp's own programs on the same files.

mod bench;
mod blocks;
mod cache;
pub(crate) mod contention;
mod crowd;
pub(crate) mod crowds;
mod gguf;
pub(crate) mod json;
pub(crate) mod make;
pub(crate) mod memory;
mod ours;
pub(crate) mod peers;
pub(crate) mod prefix;
pub(crate) mod raw;
mod server;
pub(crate) mod shapes;
pub(crate) mod side;
mod spread;
mod vocabulary;
mod words;
