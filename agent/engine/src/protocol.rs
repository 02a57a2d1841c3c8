//! What parent and engine say to each other.
//!
//! Invariants: the first frame to the engine is [`ToEngine::Start`], the first message back that is not a beat is
//! [`FromEngine::Ready`] or [`FromEngine::Fatal`]; each [`Run`] ends in exactly one [`FromEngine::Done`] or
//! [`FromEngine::Failed`] while the engine lives; `Debug` of any message shows no text of prompts, tasks or answers.

pub use crate::frame::{
    FRAME_BYTES_MAX, FrameError, LENGTH_BYTES, decode_frame, decode_length, encode_frame, read_frame, write_frame,
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};
use tidegate_schemas::{JobId, Message, PromptText};

/// Environment that the parent gives the engine when it spawns it. libgomp reads both before `main`, so the engine
/// cannot set them for itself. Without them, waiting threads spin: decode of a 0.5B model beside one busy process was
/// measured at 1 to 15 tokens per second instead of 27.
pub const CHILD_ENV: [(&str, &str); 2] = [("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "0")];

/// Longest silence of a live engine between two frames once it is ready, in milliseconds, apart from the time of one
/// step: it sends a [`FromEngine::Beat`] each second when idle and each 250 ms while it works.
pub const BEAT_IDLE_MS: u64 = 1_000;
/// Shortest time between two beats of a working engine, in milliseconds.
pub const BEAT_BUSY_MS: u64 = 250;
/// Most sequences at once: llama.cpp's own limit is 256, and prefixes need some of them.
pub const SLOTS_MAX: u32 = 64;
/// Distinct prefixes (template and system prompt) that stay computed, unless the parent says otherwise.
pub const PREFIXES_DEFAULT: u32 = 8;
/// Keys and values of all kept prefixes together unless the parent says otherwise, in bytes: 2,700 tokens of a model of
/// 0.5B, 1,000 of one of 1B.
pub const PREFIX_BYTES_DEFAULT: u64 = 32 << 20;
/// Most bytes of templates that a parent names as [`Start::pinned`]: half a frame.
pub const PINNED_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Context window unless the parent says otherwise, in tokens per sequence.
pub const CONTEXT_TOKENS_DEFAULT: u32 = 2_048;

/// All layers of a model, however many it has.
pub const GPU_LAYERS_ALL: u32 = 9_999;

/// What to load. The parent spawns the engine with [`CHILD_ENV`] set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The GGUF file.
    #[serde(with = "path_bytes")]
    pub model_path: PathBuf,
    /// Context window per sequence, in tokens; the model's own where that is smaller.
    pub context_tokens: u32,
    /// Sequences at once, 1 to [`SLOTS_MAX`].
    pub slots: u32,
    /// Threads that compute; 0: one per physical core that this process may use.
    pub threads: u32,
    /// Distinct prefixes that stay computed, 0 to [`SLOTS_MAX`]; 0 computes each prompt whole.
    pub prefixes: u32,
    /// Most bytes of their keys and values. What two of them begin with counts once.
    pub prefix_bytes_max: u64,
    /// System prompts of tasks: with the chat template around them they are computed while nothing runs, and stay. At
    /// most [`PINNED_BYTES_MAX`] bytes in all.
    pub pinned: Vec<PromptText>,
    /// Folder in which they lie as they were computed, for the next start; it is there. None: they are computed again.
    #[serde(with = "path_bytes::option")]
    pub prefix_dir: Option<PathBuf>,
    /// Refuse to load when file, keys and values and working space are predicted over this, in bytes.
    pub memory_bytes_max: Option<u64>,
    /// What is done with text that a schema forces.
    pub forced: Forced,
    /// Whether tokens are guessed from the prompt and checked several at once.
    pub guesses: Guesses,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Layers that a graphics processor takes, in a build with the feature cuda, vulkan or metal; others ignore it.
    pub gpu_layers: u32,
}

/// What is done with text that a schema leaves no choice about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forced {
    /// One batch for the whole run (fast-forward).
    AtOnce,
    /// A forward pass for each token of it, to measure and to test what that costs.
    OneByOne,
}

/// Whether tokens are guessed. The answer is the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guesses {
    /// While it pays, as measured.
    WherePaid,
    /// Always, to measure and to test it.
    Always,
    /// Never.
    Never,
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// Half-precision numbers, 2 bytes each.
    F16,
    /// Blocks of 32 numbers of 8 bits with a scale, 34 bytes: a little over half, at a small loss of precision.
    Q8_0,
}

impl Start {
    /// One slot, default context, a thread per core, no limit on memory, forced text at once, guesses where they pay.
    #[must_use]
    pub fn new(model_path: impl Into<PathBuf>) -> Self {
        Self {
            model_path: model_path.into(),
            context_tokens: CONTEXT_TOKENS_DEFAULT,
            slots: 1,
            threads: 0,
            prefixes: PREFIXES_DEFAULT,
            prefix_bytes_max: PREFIX_BYTES_DEFAULT,
            pinned: Vec::new(),
            prefix_dir: None,
            memory_bytes_max: None,
            forced: Forced::AtOnce,
            guesses: Guesses::WherePaid,
            cache: CacheType::F16,
            gpu_layers: GPU_LAYERS_ALL,
        }
    }
}

/// From the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToEngine {
    /// The first message: load this.
    Start(Start),
    /// Answer this. Runs over the number of slots wait in the engine, at most [`RUNS_WAITING_MAX`].
    Run(Run),
    /// Stop that run: it ends in [`Fault::Aborted`], or was faster. A job that does not run is ignored.
    Abort {
        /// Which run.
        job: JobId,
    },
    /// Exit now; what runs is dropped without a word.
    Stop,
}

/// Most runs that wait in the engine for a slot; one more is refused with [`Fault::Other`].
pub const RUNS_WAITING_MAX: usize = 256;

/// One prompt to answer.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The parent's name of it, unique among the runs under way.
    pub job: JobId,
    /// The task's system prompt; empty: none.
    pub system: String,
    /// The chat.
    pub messages: Vec<Message>,
    /// JSON Schema of the answer.
    pub schema: Option<String>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Whether [`FromEngine::Token`] messages are wanted.
    pub stream: bool,
    /// Where the run is given up: an answer under it would not be kept anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
}

/// Tokens after which a [`Floor`] has a value of its own.
pub const FLOOR_STEPS: usize = 8;

/// Sums of log-probabilities under which a run ends in [`Fault::Hopeless`]. A sum only falls while an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// After each of the first free tokens; the last holds for all later ones. Minus infinity never ends a run.
    pub sums: [f64; FLOOR_STEPS],
}

/// Most log-probabilities that are reported of one answer.
pub const LOGPROBS_MAX: usize = 512;

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("job", &self.job)
            .field("messages", &self.messages.len())
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

/// From the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromEngine {
    /// For a minute it has written at this share of what it wrote on this machine before, in percent; 100: it has
    /// recovered.
    Speed {
        /// The share.
        percent: u8,
    },
    /// The model is loaded.
    Ready {
        /// `general.name` of the file (its file name without one) as a valid `ModelName`.
        name: String,
        /// SHA-256 of the file, 64 hexadecimal digits.
        sha256: String,
        /// Context window per sequence, in tokens, as it really is.
        context_tokens: u32,
    },
    /// The engine lives; see [`BEAT_IDLE_MS`].
    Beat,
    /// A piece of an answer, whole characters only.
    Token {
        /// Which run.
        job: JobId,
        /// The piece; all pieces of a run together are the text of its `Done`.
        text: PromptText,
    },
    /// A run ended with an answer.
    Done(Box<Done>),
    /// A run ended without one.
    Failed {
        /// Which run.
        job: JobId,
        /// Why.
        fault: Fault,
    },
    /// The engine cannot go on and exits.
    Fatal {
        /// One sentence: what, with the value and the limit.
        message: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Which run.
    pub job: JobId,
    /// The whole text; with a schema, JSON that satisfies it.
    pub text: PromptText,
    /// What the logits said.
    pub signals: Signals,
    /// Log-probabilities of the chosen tokens in their order, the first [`LOGPROBS_MAX`] of them.
    #[serde(default)]
    pub logprobs: Vec<f32>,
    /// Tokens of template and prompt.
    pub prompt_tokens: u32,
    /// How many of them, from the first, were computed before: those of a kept prefix.
    #[serde(default)]
    pub reused_tokens: u32,
    /// Tokens written, the ending one included.
    pub completion_tokens: u32,
    /// From the first step of the run until its first token, in milliseconds.
    pub prefill_ms: u64,
    /// From the first token until the end, in milliseconds.
    pub decode_ms: u64,
    /// Why it ended.
    pub stop: Stop,
}

/// What the logits said while the answer was made. Natural logarithms of the model's own distribution at temperature
/// 1, before a schema's mask. A token is forced when the mask left no choice; forced tokens do not count here.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Signals {
    /// Sum of the log-probabilities of the chosen tokens.
    pub sum_logprob: f64,
    /// The least of them; 0 when there are none.
    pub min_logprob: f64,
    /// Their mean; 0 when there are none.
    pub mean_logprob: f64,
    /// First of these tokens: probability of the best less that of the second.
    pub first_margin: f64,
    /// First of these tokens: entropy of the distribution, in nats.
    pub first_entropy: f64,
    /// How many there are, the ending one included.
    pub tokens: u32,
    /// The least lead of one of these tokens over the next allowed one, in nats. Where it is under some 0.1, the rounding
    /// of another batch size may have chosen the other.
    pub least_lead: f64,
    /// Log-probability under which a tenth of them lies (nearest rank, of the first [`LOGPROBS_MAX`]).
    pub low_logprob: f64,
    /// Their median, likewise.
    pub median_logprob: f64,
    /// Second of these tokens: probability of the best less that of the second; the first's where there is one only.
    pub second_margin: f64,
    /// Mean of the margins.
    pub mean_margin: f64,
    /// The least margin.
    pub min_margin: f64,
    /// Mean of the entropies, in nats.
    pub mean_entropy: f64,
    /// The largest entropy, in nats.
    pub max_entropy: f64,
    /// First of these tokens: log-sum-exp of the raw logits, the *energy* of Liu et al. (2020) with its sign turned.
    pub first_energy: f64,
    /// Mean probability that the schema's mask took away, 0 to 1; 0 without a schema.
    pub mean_removed: f64,
    /// The largest of these.
    pub max_removed: f64,
    /// Tokens that the schema left no choice about.
    pub forced: u32,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// The model ended it, or the schema was complete.
    End,
    /// `max_tokens`, the context window or the largest outcome was reached.
    MaxTokens,
}

/// Why a run gave no answer although the engine lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Template and prompt leave no room for an answer in the context window. Nothing was computed.
    TooLong {
        /// Tokens of template and prompt.
        tokens: u32,
        /// Tokens of the window.
        context_tokens: u32,
    },
    /// With a schema: no valid ending within `max_tokens`.
    Cut,
    /// Aborted as asked.
    Aborted,
    /// It fell under its [`Floor`] after so many tokens.
    Hopeless {
        /// Tokens written until then.
        tokens: u32,
    },
    /// The schema cannot be used; the reason has no text of the prompt.
    Schema(String),
    /// Anything else; the reason has no text of the prompt.
    Other(String),
}

/// Paths as bytes: a path need not be UTF-8, and encoding a message must not fail.
mod path_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(path.as_os_str().as_bytes()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        Ok(PathBuf::from(OsString::from_vec(bytes.into_vec())))
    }

    pub(super) mod option {
        use super::{Deserialize, Deserializer, OsStrExt, OsString, OsStringExt, PathBuf, Serialize, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            path.as_ref().map(|path| serde_bytes::Bytes::new(path.as_os_str().as_bytes())).serialize(serializer)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            let bytes = Option::<serde_bytes::ByteBuf>::deserialize(deserializer)?;
            Ok(bytes.map(|bytes| PathBuf::from(OsString::from_vec(bytes.into_vec()))))
        }
    }
}
