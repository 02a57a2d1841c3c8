//! A small model in a file of its own, and runs for it.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;
use tidegate_engine::protocol::{Run, Start};
use tidegate_engine::tiny::{self, Shape};
use tidegate_schemas::{JobId, Message, Role};

/// A model file that goes with its folder.
pub struct Model {
    folder: tempfile::TempDir,
}

impl Model {
    pub fn of(shape: &Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tiny::write(&folder.path().join("model.gguf"), shape).unwrap();
        Self { folder }
    }

    pub fn tiny() -> Self {
        Self::of(&Shape::tiny())
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }

    /// One thread: the tests run beside each other.
    pub fn start(&self) -> Start {
        Start { threads: 1, context_tokens: 512, ..Start::new(self.path()) }
    }
}

pub fn system_run(job: u64, system: &str, text: &str, max_tokens: u32) -> Run {
    Run {
        job: JobId(job),
        system: system.to_owned(),
        messages: vec![Message { role: Role::User, content: text.into() }],
        schema: None,
        max_tokens,
        stream: false,
        floor: None,
    }
}

pub fn run(job: u64, text: &str, max_tokens: u32) -> Run {
    system_run(job, "", text, max_tokens)
}
