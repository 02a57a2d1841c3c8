//! Rigs about the engine's speed, beside llama.cpp's own programs on the same files.

mod blocks;
mod gguf;
pub(crate) mod make;
pub(crate) mod shapes;
mod vocabulary;
