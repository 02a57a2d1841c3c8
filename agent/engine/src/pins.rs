//! Templates of tasks: computed once while nothing runs, pinned, written to disk and found there at the next start.
//!
//! Invariants: a run never waits for more than one step of this; what is half computed is given up when a run comes, and
//! begun again later; a template that cannot be kept is said once and left out.

use crate::load::{Loaded, PREFILL_TOKENS_MAX};
use crate::prefixes::{Part, Pin, Place, Prefixes};
use crate::shelf::{self, Shelf};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use std::collections::VecDeque;

/// The templates that are to stand.
pub(crate) struct Pins {
    all: Vec<Vec<LlamaToken>>,
    /// Which of them do not stand yet.
    waiting: VecDeque<usize>,
    under_way: Option<Warming>,
    shelf: Option<Shelf>,
}

/// A template that is being computed in the sequence that will keep it.
struct Warming {
    which: usize,
    sequence: i32,
    fed: usize,
}

/// A step could not be computed: nothing in the cache can be relied on.
pub(crate) struct Broken(pub(crate) String);

impl Pins {
    /// All of a loaded model's, those on disk put in place.
    pub(crate) fn new(loaded: &Loaded, context: &mut LlamaContext<'_>, prefixes: &mut Prefixes) -> Self {
        let all = loaded.pinned.clone();
        let mut pins = Self { waiting: VecDeque::new(), under_way: None, shelf: loaded.shelf(), all };
        pins.waiting = (0..pins.all.len())
            .filter(|which| !pins.found(*which, loaded.shelf_bytes_max, context, prefixes))
            .collect();
        pins
    }

    /// Whether nothing is left to compute.
    pub(crate) fn rest(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// All have to be computed again: the cache was cleared.
    pub(crate) fn again(&mut self) {
        self.under_way = None;
        self.waiting = (0..self.all.len()).collect();
    }

    /// Gives up what is half computed, because a run came.
    pub(crate) fn pause(&mut self, context: &mut LlamaContext<'_>, prefixes: &mut Prefixes) {
        if let Some(warming) = self.under_way.take() {
            prefixes.remove(warming.sequence);
            clear(context, warming.sequence);
            self.waiting.push_front(warming.which);
        }
    }

    /// A bounded piece of the work.
    pub(crate) fn step(
        &mut self,
        context: &mut LlamaContext<'_>,
        batch: &mut LlamaBatch<'_>,
        prefixes: &mut Prefixes,
    ) -> Result<(), Broken> {
        let Some(warming) = self.under_way.take() else {
            self.begin(context, prefixes);
            return Ok(());
        };
        let tokens = &self.all[warming.which];
        let piece = &tokens[warming.fed..tokens.len().min(warming.fed + PREFILL_TOKENS_MAX as usize)];
        batch.clear();
        for (position, token) in (warming.fed..).zip(piece) {
            let position = i32::try_from(position).expect("a context window is smaller");
            batch.add(*token, position, &[warming.sequence], false).expect("the batch has room for the prefill limit");
        }
        let (fed, whole) = (warming.fed + piece.len(), tokens.len());
        if let Err(error) = context.decode(batch) {
            // Once more would most likely end the same way, and so on for ever.
            self.all.clear();
            return Err(Broken(error.to_string()));
        }
        if fed < whole {
            self.under_way = Some(Warming { fed, ..warming });
        } else {
            self.save(warming.which, warming.sequence, context);
        }
        Ok(())
    }

    /// Takes the next template: it stands already because a run computed it, or its computation begins.
    fn begin(&mut self, context: &mut LlamaContext<'_>, prefixes: &mut Prefixes) {
        let Some(which) = self.waiting.pop_front() else { return };
        let tokens = &self.all[which];
        if let Some(sequence) = prefixes.stands(tokens, Pin::Pinned) {
            return self.save(which, sequence, context);
        }
        let Some(place) = prefixes.place(tokens, Pin::Pinned) else {
            tracing::warn!(tokens = tokens.len(), "a task's template has no room among the kept prefixes");
            return;
        };
        let fed = place.shared.map_or(0, |part| part.tokens);
        take_place(context, &place);
        if fed < tokens.len() {
            self.under_way = Some(Warming { which, sequence: place.sequence, fed });
        } else {
            self.save(which, place.sequence, context);
        }
    }

    /// Puts a template in place from the disk; whether it stands.
    fn found(&self, which: usize, bytes_max: u64, context: &mut LlamaContext<'_>, prefixes: &mut Prefixes) -> bool {
        let (Some(shelf), tokens) = (&self.shelf, &self.all[which]) else { return false };
        let state = match shelf.load(tokens, bytes_max) {
            Ok(Some(state)) => state,
            Ok(None) => return false,
            Err(wrong) => {
                tracing::warn!(%wrong, "a prefix on disk is computed again");
                return false;
            }
        };
        let Some(place) = prefixes.place(tokens, Pin::Pinned) else { return false };
        if shelf::restore(context, place.sequence, &state) {
            // What another one holds already need not stand twice.
            place.shared.inspect(|part| copy(context, *part, place.sequence));
            return true;
        }
        tracing::warn!("llama.cpp does not take a prefix from the disk: it is computed again");
        prefixes.remove(place.sequence);
        clear(context, place.sequence);
        false
    }

    fn save(&mut self, which: usize, sequence: i32, context: &LlamaContext<'_>) {
        let Some(shelf) = &mut self.shelf else { return };
        let state = shelf::state_of(context, sequence);
        if let Err(wrong) = shelf.save(&self.all[which], &state) {
            tracing::warn!(%wrong, "a prefix is not kept on disk");
        }
    }
}

/// Clears what a place asks for, and brings what another one holds of it.
pub(crate) fn take_place(context: &mut LlamaContext<'_>, place: &Place) {
    place.clear.iter().for_each(|old| clear(context, *old));
    place.shared.inspect(|part| copy(context, *part, place.sequence));
}

/// Makes the begin of a sequence that of another: the cells are the same from now on.
pub(crate) fn copy(context: &mut LlamaContext<'_>, from: Part, to: i32) {
    let end = u32::try_from(from.tokens).expect("a prefix is shorter than the context window");
    let number = u32::try_from(to).expect("sequence numbers are not negative");
    let cleared = context.clear_kv_cache_seq(Some(number), Some(0), Some(end));
    cleared.expect("a sequence number under 256 and a position within the window fit");
    let copied = context.copy_kv_cache_seq(from.sequence, to, Some(0), Some(end));
    copied.expect("a position within the window fits");
}

/// Appends what one sequence has after some tokens to another that has those.
pub(crate) fn copy_rest(context: &mut LlamaContext<'_>, from: Part, after: usize, to: i32) {
    let begin = u32::try_from(after).expect("a prefix is shorter than the context window");
    let end = u32::try_from(from.tokens).expect("a prefix is shorter than the context window");
    let copied = context.copy_kv_cache_seq(from.sequence, to, Some(begin), Some(end));
    copied.expect("a position within the window fits");
}

/// Empties a sequence.
pub(crate) fn clear(context: &mut LlamaContext<'_>, sequence: i32) {
    let number = u32::try_from(sequence).expect("sequence numbers are not negative");
    let cleared = context.clear_kv_cache_seq(Some(number), None, None);
    cleared.expect("a sequence number under 256 fits, and no positions are given");
}
