//! Continuous batching: each step is one `decode` with one token of every run that writes and a bounded piece of prompts.
//!
//! Invariants: a batch never has more tokens than the context was made for (llama.cpp aborts on that); sequence `i` of
//! the cache belongs to slot `i`, the sequences after the slots to [`Prefixes`]; a slot without a run has an empty
//! sequence; every accepted run leaves by exactly one message.

use crate::gain::Gain;
use crate::grammar::Grammars;
use crate::guess::{GUESS_TOKENS_MAX, Payoff, Pays};
use crate::load::{LoadError, Loaded, PREFILL_TOKENS_MAX, batch_tokens};
use crate::pace::{Pace, Turn};
use crate::pins::{Broken, Pins, clear, copy, copy_rest, take_place};
use crate::prefixes::{Part, Pin, Prefixes};
use crate::prompt;
use crate::protocol::{Fault, Forced, FromEngine, Guesses, RUNS_WAITING_MAX, Run, Stop};
use crate::sequence::{Next, Ready, Sequence};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_schemas::JobId;

/// Steps at more tokens than this take longer for that alone, and say nothing of the machine.
const DEPTH_TOKENS_MAX: u32 = 512;

/// Tokens of the first step: enough for the kernels that take several rows, and fewer than any window.
const TOUCH_TOKENS: i32 = 8;

/// Nobody takes messages any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Where messages go.
pub(crate) type Outlet<'a> = dyn FnMut(FromEngine) -> Result<(), Gone> + 'a;

/// A model at work. Owned by one thread.
pub(crate) struct Batcher<'m> {
    loaded: &'m Loaded,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    /// By sequence number.
    slots: Vec<Option<Sequence>>,
    /// Slots with a run, in the order of their begin.
    order: Vec<usize>,
    waiting: VecDeque<Sequence>,
    prefixes: Prefixes,
    pins: Pins,
    grammars: Grammars,
    payoff: Payoff,
    pace: Pace,
    gain: Gain,
}

/// The logits of a slot stand at this place of the batch, and after it those of its guesses.
struct Output {
    slot: usize,
    at: i32,
    guesses: usize,
}

impl<'m> Batcher<'m> {
    /// An idle one.
    pub(crate) fn new(loaded: &'m Loaded) -> Result<Self, LoadError> {
        let slots = i32::try_from(loaded.slots).expect("checked against SLOTS_MAX");
        let prefixes = i32::try_from(loaded.prefixes).expect("checked against SLOTS_MAX");
        let mut context = loaded.context()?;
        let mut batch = LlamaBatch::new(batch_tokens(loaded.slots) as usize, 1);
        touch(&mut context, &mut batch)?;
        let mut prefixes = Prefixes::new(slots..slots + prefixes, loaded.prefix_cells as usize, loaded.sharing);
        Ok(Self {
            loaded,
            pins: Pins::new(loaded, &mut context, &mut prefixes),
            context,
            batch,
            slots: (0..loaded.slots).map(|_| None).collect(),
            order: Vec::new(),
            waiting: VecDeque::new(),
            prefixes,
            grammars: Grammars::default(),
            payoff: Payoff::default(),
            pace: Pace::default(),
            gain: Gain::default(),
        })
    }

    /// Whether nothing runs or waits.
    fn is_idle(&self) -> bool {
        self.order.is_empty() && self.waiting.is_empty()
    }

    /// Whether there is nothing to do: no run, and no template to compute ahead.
    pub(crate) fn rests(&self) -> bool {
        self.is_idle() && self.pins.rest()
    }

    /// Takes a run, or says at once why not.
    pub(crate) fn submit(&mut self, run: &Run, out: &mut Outlet<'_>) -> Result<(), Gone> {
        match self.prepare(run) {
            Ok(sequence) => {
                self.pins.pause(&mut self.context, &mut self.prefixes);
                self.waiting.push_back(sequence);
                Ok(())
            }
            Err(fault) => out(FromEngine::Failed { job: run.job, fault }),
        }
    }

    fn prepare(&mut self, run: &Run) -> Result<Sequence, Fault> {
        if self.waiting.len() >= RUNS_WAITING_MAX {
            return Err(Fault::Other(format!("{RUNS_WAITING_MAX} runs wait already, which is the limit")));
        }
        let known = |s: &Sequence| s.job == run.job;
        if self.waiting.iter().any(known) || self.slots.iter().flatten().any(known) {
            return Err(Fault::Other(format!("job {} is under way already", run.job)));
        }
        let mut prompt = prompt::tokens(self.loaded, run)?;
        if self.loaded.prefixes == 0 {
            // Nothing is kept, so no step has to end with the template.
            prompt.prefix = 0;
        }
        let grammar = match &run.schema {
            Some(schema) => {
                let made = self.grammars.grammar(self.loaded, schema, run);
                Some(made.map_err(|fault| Fault::Schema(fault.0))?)
            }
            None => None,
        };
        Ok(Sequence::new(run, prompt, grammar, self.loaded.context_tokens))
    }

    /// Stops a run, where there is one.
    pub(crate) fn abort(&mut self, job: JobId, out: &mut Outlet<'_>) -> Result<(), Gone> {
        let waits = self.waiting.iter().position(|s| s.job == job);
        let runs = self.slots.iter().position(|s| s.as_ref().is_some_and(|s| s.job == job));
        match (waits, runs) {
            (Some(at), _) => drop(self.waiting.remove(at)),
            (_, Some(slot)) => drop(self.vacate(slot)),
            (None, None) => return Ok(()),
        }
        out(FromEngine::Failed { job, fault: Fault::Aborted })
    }

    /// One decode, and what follows from it.
    pub(crate) fn step(&mut self, out: &mut Outlet<'_>) -> Result<(), Gone> {
        if self.is_idle() {
            return self.step_idle(out);
        }
        self.seat();
        let outputs = self.compose();
        let tokens = self.batch.n_tokens();
        if tokens == 0 {
            return Ok(());
        }
        let began = Instant::now();
        if let Err(error) = self.context.decode(&mut self.batch) {
            return self.fail_all(&format!("llama.cpp could not compute a step: {error}"), out);
        }
        let took = began.elapsed();
        tell(self.time(&outputs, tokens, took), out)?;
        if usize::try_from(tokens) == Ok(outputs.len()) {
            self.gain.step(outputs.len(), took);
        }
        self.keep_prefixes();
        for output in &outputs {
            let right = self.advance(output, out)?;
            self.price(output, right, tokens, took);
        }
        Ok(())
    }

    /// What is done while nothing runs.
    fn step_idle(&mut self, out: &mut Outlet<'_>) -> Result<(), Gone> {
        match self.pins.step(&mut self.context, &mut self.batch, &mut self.prefixes) {
            Ok(()) => Ok(()),
            Err(Broken(error)) => self.fail_all(&format!("llama.cpp could not compute a template: {error}"), out),
        }
    }

    /// Learns how fast this machine writes, from steps in which each sequence wrote one token at a small depth.
    fn time(&mut self, outputs: &[Output], tokens: i32, took: Duration) -> Option<Turn> {
        let alike = usize::try_from(tokens) == Ok(outputs.len()) && outputs.iter().all(|output| output.guesses == 0);
        let shallow = self.slots.iter().flatten().all(|sequence| sequence.depth() <= DEPTH_TOKENS_MAX);
        if alike && shallow { self.pace.step(outputs.len(), took, Instant::now()) } else { None }
    }

    /// Learns what guessing brings, from steps that did nothing else.
    fn price(&mut self, output: &Output, right: usize, tokens: i32, took: Duration) {
        if tokens == 1 {
            self.payoff.plain(took);
        } else if output.guesses > 0 && usize::try_from(tokens) == Ok(output.guesses + 1) {
            self.payoff.guessed(took, right);
        }
    }

    /// Gives free slots to those who wait, with what is already computed of their prompts.
    fn seat(&mut self) {
        while let Some(slot) = self.slots.iter().position(Option::is_none) {
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            if let Some(part) = self.prefixes.longest(sequence.reusable()) {
                copy(&mut self.context, part, i32::try_from(slot).expect("slots are few"));
                sequence.skip(part.tokens);
            }
            self.slots[slot] = Some(sequence);
            self.order.push(slot);
        }
    }

    /// Fills the batch: first the writers, then pieces of prompts in the order of arrival.
    fn compose(&mut self) -> Vec<Output> {
        self.batch.clear();
        let mut outputs = Vec::new();
        let mut room = PREFILL_TOKENS_MAX as usize;
        let writes = |slots: &[Option<Sequence>], slot: usize| slots[slot].as_ref().is_some_and(Sequence::writes);
        let (mut writers, readers): (Vec<_>, Vec<_>) = self.order.iter().partition(|slot| writes(&self.slots, **slot));
        writers.truncate(self.gain.together(writers.len()));
        // One token of each writer always has a place; forced text and guesses share the room of the prompts.
        for slot in writers {
            let most = if self.loaded.forced == Forced::AtOnce { 1 + room } else { 1 + room.min(self.guesses()) };
            room -= self.feed(slot, most, &mut outputs).saturating_sub(1);
        }
        for slot in readers {
            if room > 0 {
                room -= self.feed(slot, room, &mut outputs);
            }
        }
        outputs
    }

    /// Puts up to `most` tokens of a slot into the batch; how many.
    fn feed(&mut self, slot: usize, most: usize, outputs: &mut Vec<Output>) -> usize {
        let guesses = self.guesses();
        let Some(sequence) = &mut self.slots[slot] else { return 0 };
        let mut fed = sequence.feed(most);
        let most = guesses.min(most - fed.certain);
        sequence.add_guess(&mut fed, most);
        if fed.ready == Ready::ToChoose {
            let last = self.batch.n_tokens() + i32::try_from(fed.certain).expect("a batch is small") - 1;
            outputs.push(Output { slot, at: last, guesses: fed.tokens.len() - fed.certain });
        }
        let number = i32::try_from(slot).expect("slots are few");
        for (position, (i, token)) in (fed.at..).zip(fed.tokens.iter().enumerate()) {
            let chosen_from = fed.ready == Ready::ToChoose && i + 1 >= fed.certain;
            let position = i32::try_from(position).expect("a context window is smaller");
            let added = self.batch.add(*token, position, &[number], chosen_from);
            added.expect("the batch has room for the prefill limit and one token per slot");
        }
        fed.tokens.len()
    }

    /// Tokens to guess in this step: while several sequences run, the batch is full of certain tokens already.
    fn guesses(&mut self) -> usize {
        let pays = match self.loaded.guesses {
            Guesses::Never => Pays::No,
            Guesses::Always => Pays::Yes,
            Guesses::WherePaid if self.order.len() > 1 => Pays::No,
            Guesses::WherePaid => self.payoff.pays(),
        };
        if pays == Pays::Yes { GUESS_TOKENS_MAX } else { 0 }
    }

    /// Copies prefixes that were just computed into sequences of their own.
    fn keep_prefixes(&mut self) {
        for slot in &self.order {
            let Some(sequence) = self.slots[*slot].as_ref().filter(|s| s.stands_at_prefix()) else { continue };
            let Some(place) = self.prefixes.place(sequence.prefix(), Pin::ByUse) else { continue };
            take_place(&mut self.context, &place);
            let own = Part { sequence: i32::try_from(*slot).expect("slots are few"), tokens: sequence.prefix().len() };
            let shared = place.shared.map_or(0, |part| part.tokens);
            copy_rest(&mut self.context, own, shared, place.sequence);
        }
    }

    /// Lets a sequence choose its next tokens, as far as its guesses were right; how many were.
    fn advance(&mut self, output: &Output, out: &mut Outlet<'_>) -> Result<usize, Gone> {
        let mut right = 0;
        loop {
            let at = output.at + i32::try_from(right).expect("a guess is a few tokens");
            if !self.choose(output.slot, at, out)? {
                return Ok(right);
            }
            let Some(sequence) = &mut self.slots[output.slot] else { return Ok(right) };
            match sequence.confirm() {
                Some(more) => right += more,
                None => break,
            }
        }
        self.forget_guess(output.slot);
        Ok(right)
    }

    /// Clears the cells of guesses that were wrong.
    fn forget_guess(&mut self, slot: usize) {
        let Some(from) = self.slots[slot].as_mut().and_then(Sequence::drop_guess) else { return };
        let number = u32::try_from(slot).expect("slots are few");
        let cleared = self.context.clear_kv_cache_seq(Some(number), Some(from), None);
        cleared.expect("a position within the window fits");
    }

    /// Lets a sequence choose its next token, and tells what came of it; whether it goes on.
    fn choose(&mut self, slot: usize, at: i32, out: &mut Outlet<'_>) -> Result<bool, Gone> {
        let Some(sequence) = &mut self.slots[slot] else { return Ok(false) };
        let logits = self.context.get_logits_ith(at);
        let next = sequence.choose(logits, &self.loaded.model.vocab());
        if !matches!(next, Ok(Next::Continue)) {
            sequence.close();
        }
        let (job, stream) = (sequence.job, sequence.stream);
        let piece = sequence.piece();
        if stream && !piece.is_empty() && next.is_ok() {
            out(FromEngine::Token { job, text: piece.into() })?;
        }
        match next {
            Ok(Next::Continue) => return Ok(true),
            Ok(Next::Ended(stop)) => self.finish(slot, stop, out)?,
            Err(fault) => {
                self.vacate(slot);
                out(FromEngine::Failed { job, fault })?;
            }
        }
        Ok(false)
    }

    fn finish(&mut self, slot: usize, stop: Stop, out: &mut Outlet<'_>) -> Result<(), Gone> {
        match self.vacate(slot) {
            Some(sequence) => out(FromEngine::Done(Box::new(sequence.into_done(stop)))),
            None => Ok(()),
        }
    }

    /// Empties a slot and its sequence.
    fn vacate(&mut self, slot: usize) -> Option<Sequence> {
        self.order.retain(|s| *s != slot);
        clear(&mut self.context, i32::try_from(slot).expect("slots are few"));
        self.slots[slot].take()
    }

    /// After a failed step nothing in the cache can be relied on.
    fn fail_all(&mut self, why: &str, out: &mut Outlet<'_>) -> Result<(), Gone> {
        self.context.clear_kv_cache();
        self.prefixes.forget();
        self.pins.again();
        for slot in std::mem::take(&mut self.order) {
            if let Some(sequence) = self.slots[slot].take() {
                out(FromEngine::Failed { job: sequence.job, fault: Fault::Other(why.to_owned()) })?;
            }
        }
        Ok(())
    }
}

/// Computes a few tokens for nothing: the first step reads every weight for the first time, and no prompt should wait
/// for that.
fn touch(context: &mut LlamaContext<'_>, batch: &mut LlamaBatch<'_>) -> Result<(), LoadError> {
    for position in 0..TOUCH_TOKENS {
        let added = batch.add(LlamaToken(0), position, &[0], position + 1 == TOUCH_TOKENS);
        added.expect("the batch has room for the prefill limit");
    }
    context.decode(batch).map_err(|error| format!("llama.cpp could not compute a first step: {error}"))?;
    clear(context, 0);
    batch.clear();
    Ok(())
}

/// Passes a change of speed on.
fn tell(turn: Option<Turn>, out: &mut Outlet<'_>) -> Result<(), Gone> {
    match turn {
        Some(Turn::Fallen(percent)) => out(FromEngine::Speed { percent }),
        Some(Turn::Recovered) => out(FromEngine::Speed { percent: 100 }),
        None => Ok(()),
    }
}
