//! A model on its way into memory: looked at, weighed, digested, loaded.

use crate::backend::backend;
use crate::canonical::Cutting;
use crate::fitting::advice;
use crate::gguf::Head;
use crate::guess::GUESS_TOKENS_MAX;
use crate::memory::{Memory, Plan, cell_bytes, fits_blocks};
use crate::model_file::{ModelFile, describe, digest, head_of};
use crate::prefixes::Sharing;
use crate::prompt::template_of;
use crate::protocol::{CacheType, Forced, Guesses, PINNED_BYTES_MAX, SLOTS_MAX, Start};
use crate::shelf::{Settings, Shelf};
use crate::template::{CHATML, Template};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::model::{LlamaModel, params::LlamaModelParams};
use llama_cpp_2::token::LlamaToken;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Prompt tokens of one step, over all sequences: what an abort or a deadline waits for at most.
pub(crate) const PREFILL_TOKENS_MAX: u32 = 64;
/// Smallest and largest context window per sequence, in tokens.
const CONTEXT_TOKENS: std::ops::RangeInclusive<u32> = 16..=1_048_576;
/// Tokens of a chat template around a system prompt, about.
const TEMPLATE_TOKENS: usize = 16;
/// Most threads: more than any gateway has cores.
const THREADS_MAX: u32 = 256;
/// Architectures that are not language models answering in text; llama.cpp aborts when they are asked to.
const NOT_GENERATIVE: [&str; 8] =
    ["bert", "nomic-bert", "jina-bert-v2", "modern-bert", "t5", "t5encoder", "clip", "wavtokenizer-dec"];

/// A model in memory with what is needed to speak to it.
pub(crate) struct Loaded {
    pub(crate) model: Arc<LlamaModel>,
    pub(crate) file: ModelFile,
    pub(crate) template: Template,
    /// Context window per sequence, in tokens.
    pub(crate) context_tokens: u32,
    pub(crate) slots: u32,
    pub(crate) prefixes: u32,
    /// Tokens that all kept prefixes may have together.
    pub(crate) prefix_cells: u32,
    /// Bytes of the states of pinned prefixes on disk.
    pub(crate) shelf_bytes_max: u64,
    /// What prompts of the tasks begin with.
    pub(crate) pinned: Vec<Vec<LlamaToken>>,
    pub(crate) sharing: Sharing,
    pub(crate) cutting: Cutting,
    pub(crate) forced: Forced,
    pub(crate) guesses: Guesses,
    cache: CacheType,
    threads: u32,
    prefix_dir: Option<PathBuf>,
}

/// Why a model is not loaded: one sentence with the file, the value and the limit.
pub(crate) type LoadError = String;

/// Looks at a model file, checks it against the settings and the memory limit, and loads it; `progress` is called
/// while the file is read.
pub(crate) fn load(start: &Start, progress: &mut dyn FnMut()) -> Result<Loaded, LoadError> {
    check_settings(start)?;
    let path = start.model_path.as_path();
    let (head, bytes) = head_of(path).map_err(|e| e.to_string())?;
    let mut file = describe(path, &head, bytes, String::new()).map_err(|e| e.to_string())?;
    let refuse = |what: &str| Err(format!("model {}: {what}", path.display()));
    if NOT_GENERATIVE.contains(&file.architecture.as_str()) {
        return refuse(&format!("its architecture is {}, which writes no text", file.architecture));
    }
    let context_tokens = start.context_tokens.min(file.context_length.max(1));
    if start.cache == CacheType::Q8_0 && !fits_blocks(&head) {
        return refuse(
            "heads of its keys or values are no multiples of 32 numbers, which kv_type q8_0 stores together",
        );
    }
    let predicted = Memory::predict(&head, bytes, plan(start, &head, context_tokens));
    if let Some(over) = start
        .memory_bytes_max
        .and_then(|max| predicted.over(max, || advice(&head, bytes, &Start { context_tokens, ..start.clone() }, max)))
    {
        return refuse(&over);
    }
    file.sha256 = digest(path, progress).map_err(|e| e.to_string())?;
    let params = LlamaModelParams::default().with_use_mmap(true).with_n_gpu_layers(start.gpu_layers);
    let model = LlamaModel::load_from_file(backend()?, path, &params)
        .map_err(|e| format!("model {}: llama.cpp does not load it: {e}", path.display()))?;
    let template = template(path, &head, &model)?;
    let threads = if start.threads == 0 { physical_cores() } else { start.threads };
    let mut loaded = Loaded {
        sharing: sharing(&head, &model),
        // A wrong guess has to be taken back.
        guesses: if recurs(&model) { Guesses::Never } else { start.guesses },
        model: Arc::new(model),
        file,
        template,
        context_tokens,
        slots: start.slots,
        prefixes: start.prefixes,
        prefix_cells: 0,
        // Positions stand beside keys and values.
        shelf_bytes_max: start.prefix_bytes_max.saturating_add(start.prefix_bytes_max / 8),
        pinned: Vec::new(),
        cutting: Cutting::of(head.text("tokenizer.ggml.model")),
        forced: start.forced,
        cache: start.cache,
        threads,
        prefix_dir: start.prefix_dir.clone(),
    };
    let templates = start.pinned.iter().map(|system| template_of(&loaded, system.reveal()));
    loaded.pinned = templates.filter(|tokens| !tokens.is_empty()).collect();
    let pinned = loaded.pinned.iter().map(Vec::len).sum::<usize>();
    loaded.prefix_cells = prefix_cells(start, &head, context_tokens, u32::try_from(pinned).unwrap_or(u32::MAX));
    Ok(loaded)
}

/// Whether the state of a sequence stands token by token. Of a window that slides, the cells behind it are not saved.
fn sharing(head: &Head, model: &LlamaModel) -> Sharing {
    let slides = head.size("attention.sliding_window").is_some_and(|window| window > 0);
    if slides || recurs(model) { Sharing::Whole } else { Sharing::Parts }
}

/// Whether a sequence has a state that cannot be taken back token by token.
fn recurs(model: &LlamaModel) -> bool {
    model.is_recurrent() || model.is_hybrid()
}

/// Cells for kept prefixes: what the budget holds, and no more than the templates of tasks and one window for others.
/// Who names no tasks may have as many windows as prefixes.
fn prefix_cells(start: &Start, head: &Head, context_tokens: u32, pinned_tokens: u32) -> u32 {
    if start.prefixes == 0 {
        return 0;
    }
    let windows = if start.pinned.is_empty() { start.prefixes } else { 1 };
    let wanted = context_tokens.saturating_mul(windows).saturating_add(pinned_tokens);
    let within = start.prefix_bytes_max / cell_bytes(head, start.cache).max(1);
    wanted.min(u32::try_from(within).unwrap_or(u32::MAX))
}

/// What these settings make of a model.
pub(crate) fn plan(start: &Start, head: &Head, context_tokens: u32) -> Plan {
    // The vocabulary is not at hand yet: a token is some three bytes.
    let pinned = start.pinned.iter().map(|system| system.reveal().len() / 3 + TEMPLATE_TOKENS).sum::<usize>();
    let pinned = u32::try_from(pinned).unwrap_or(u32::MAX);
    Plan {
        cells: cells(start.slots, prefix_cells(start, head, context_tokens, pinned), context_tokens).into(),
        batch: batch_tokens(start.slots).into(),
        outputs: u64::from(start.slots).max(1 + GUESS_TOKENS_MAX as u64),
        cache: start.cache,
    }
}

fn check_settings(start: &Start) -> Result<(), LoadError> {
    if !(1..=SLOTS_MAX).contains(&start.slots) {
        return Err(format!("slots is {}, allowed are 1 to {SLOTS_MAX}", start.slots));
    }
    if start.prefixes > SLOTS_MAX {
        return Err(format!("prefixes is {}, allowed are 0 to {SLOTS_MAX}", start.prefixes));
    }
    if start.threads > THREADS_MAX {
        return Err(format!("threads is {}, allowed are 0 to {THREADS_MAX}", start.threads));
    }
    let pinned = start.pinned.iter().map(|system| system.reveal().len()).sum::<usize>();
    if pinned > PINNED_BYTES_MAX {
        return Err(format!("pinned templates have {pinned} bytes, limit is {PINNED_BYTES_MAX}"));
    }
    if !CONTEXT_TOKENS.contains(&start.context_tokens) {
        let (min, max) = (CONTEXT_TOKENS.start(), CONTEXT_TOKENS.end());
        return Err(format!("context_tokens is {}, allowed are {min} to {max}", start.context_tokens));
    }
    Ok(())
}

/// Tokens of one step at most: prefill and one per running sequence.
pub(crate) fn batch_tokens(slots: u32) -> u32 {
    PREFILL_TOKENS_MAX + slots
}

/// Cells that all sequences and the kept prefixes need together: one window for each.
fn cells(slots: u32, prefix_cells: u32, context_tokens: u32) -> u32 {
    slots.saturating_mul(context_tokens).saturating_add(prefix_cells)
}

impl Loaded {
    /// A context of this model. The sequences share one cache, so that a prefix is copied by reference.
    pub(crate) fn context(&self) -> Result<LlamaContext<'_>, LoadError> {
        let batch = batch_tokens(self.slots);
        let threads = i32::try_from(self.threads).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(cells(self.slots, self.prefix_cells, self.context_tokens)))
            .with_n_batch(batch)
            .with_n_ubatch(batch)
            .with_n_seq_max(self.slots + self.prefixes)
            .with_kv_unified(true)
            .with_type_k(kv_type(self.cache))
            .with_type_v(kv_type(self.cache))
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_no_perf(true);
        let context = self.model.new_context(backend()?, params);
        context.map_err(|e| format!("llama.cpp makes no context of {} tokens: {e}", self.context_tokens))
    }

    /// Where computed templates lie on disk.
    pub(crate) fn shelf(&self) -> Option<Shelf> {
        let settings = Settings {
            model: &self.file.sha256,
            cache: self.cache,
            context_tokens: self.context_tokens,
            attention: "auto",
        };
        Some(Shelf::new(self.prefix_dir.as_deref()?, settings, self.shelf_bytes_max))
    }
}

fn kv_type(cache: CacheType) -> KvCacheType {
    match cache {
        CacheType::F16 => KvCacheType::F16,
        CacheType::Q8_0 => KvCacheType::Q8_0,
    }
}

/// The file's own chat template, or ChatML where the vocabulary has its tokens.
fn template(path: &Path, head: &Head, model: &LlamaModel) -> Result<Template, LoadError> {
    let vocab = model.vocab();
    let chatml = || (vocab.tokenize(b"<|im_start|>", false, true).len() == 1).then_some(CHATML);
    let Some(source) = head.text("tokenizer.chat_template").or_else(chatml) else {
        let what = "it has no tokenizer.chat_template, and its vocabulary no <|im_start|> for ChatML";
        return Err(format!("model {}: {what}", path.display()));
    };
    let text = |token: LlamaToken| {
        let known = (0..vocab.n_tokens()).contains(&token.0).then(|| vocab.text(token)).flatten();
        known.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    };
    Template::new(source, &text(vocab.bos()), &text(vocab.eos())).map_err(|e| format!("model {}: {e}", path.display()))
}

/// Cores that this process may use, hardware threads of one core counted once; at least one.
fn physical_cores() -> u32 {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = (0..1_024).map_while(|cpu| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(path).ok()
    });
    let distinct = cores.collect::<std::collections::BTreeSet<_>>().len();
    let usable = if distinct == 0 { allowed } else { allowed.min(distinct) };
    u32::try_from(usable).map_or(1, |n| n.clamp(1, THREADS_MAX))
}
