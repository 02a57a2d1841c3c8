//! One run under way: what it still has to feed, what it wrote, what the logits said.

use crate::grammar::{Choice, Completeness, Grammar, SchemaFault};
use crate::guess::guess;
use crate::prompt::PromptTokens;
use crate::protocol::{Done, Fault, Floor, Run, Stop};
use crate::reading::{Beside, Reading};
use crate::tally::Tally;
use crate::text::Growing;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::LlamaVocab;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_schemas::{JobId, OUTCOME_BYTES_MAX};

/// Longest text of an answer, in bytes: a longer one could not be delivered.
const TEXT_BYTES_MAX: usize = OUTCOME_BYTES_MAX;

/// Tokens that one choice adds to the way to a valid ending at most, but for objects with many required keys: so long
/// the ending need not be looked for again.
const ENDING_GROWTH_TOKENS: u32 = 16;

/// A run under way.
pub(crate) struct Sequence {
    pub(crate) job: JobId,
    pub(crate) stream: bool,
    /// Tokens that are not in the cache yet.
    queue: VecDeque<LlamaToken>,
    /// Guesses that are in the cache after the fed tokens, not confirmed yet.
    guessed: VecDeque<LlamaToken>,
    /// Prompt and answer so far: what guesses are drawn from.
    history: Vec<LlamaToken>,
    /// Tokens that are.
    fed: u32,
    /// Template and system prompt, until they are in the cache.
    prefix: Vec<LlamaToken>,
    prompt_tokens: u32,
    /// How many of them were found in the cache.
    reused_tokens: u32,
    /// The last token that may be written, counted from the first of the prompt.
    end: u32,
    max_tokens: u32,
    /// At this room for tokens, or less, a valid ending is looked for.
    look_at: u32,
    written: u32,
    text: Growing,
    grammar: Option<Grammar>,
    tally: Tally,
    floor: Option<Floor>,
    began: Option<Instant>,
    first_token: Option<Instant>,
}

/// What a sequence does after a token.
pub(crate) enum Next {
    /// It goes on with the token that it chose.
    Continue,
    /// It ended well.
    Ended(Stop),
}

impl Sequence {
    /// A run, with its prompt whole before it.
    pub(crate) fn new(run: &Run, prompt: PromptTokens, grammar: Option<Grammar>, context_tokens: u32) -> Self {
        Self {
            job: run.job,
            stream: run.stream,
            fed: 0,
            prefix: prompt.tokens[..prompt.prefix].to_vec(),
            prompt_tokens: u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX),
            reused_tokens: 0,
            history: prompt.tokens.clone(),
            queue: prompt.tokens.into(),
            guessed: VecDeque::new(),
            end: context_tokens,
            max_tokens: run.max_tokens.max(1),
            look_at: u32::MAX,
            written: 0,
            text: Growing::default(),
            grammar,
            tally: Tally::default(),
            floor: run.floor,
            began: None,
            first_token: None,
        }
    }

    /// Template and system prompt.
    pub(crate) fn prefix(&self) -> &[LlamaToken] {
        &self.prefix
    }

    /// What may be found in the cache of another: all but the last token, whose logits are wanted.
    pub(crate) fn reusable(&self) -> &[LlamaToken] {
        &self.history[..self.history.len().saturating_sub(1)]
    }

    /// The first tokens are in the cache already.
    pub(crate) fn skip(&mut self, tokens: usize) {
        self.queue.drain(..tokens);
        self.fed = u32::try_from(tokens).expect("a prompt is shorter than the context window");
        self.reused_tokens = self.fed;
    }

    /// Whether the cache holds the prefix and nothing else: the moment to keep it.
    pub(crate) fn stands_at_prefix(&self) -> bool {
        self.fed as usize == self.prefix.len() && !self.prefix.is_empty()
    }

    /// Tokens in the cache.
    pub(crate) fn depth(&self) -> u32 {
        self.fed
    }

    /// Whether all that waits was written by the model or forced.
    pub(crate) fn writes(&self) -> bool {
        self.written > 0
    }

    /// Takes up to `most` tokens to feed, not past the prefix.
    pub(crate) fn feed(&mut self, most: usize) -> Fed {
        self.began.get_or_insert_with(Instant::now);
        let to_prefix = self.prefix.len().saturating_sub(self.fed as usize);
        let most = if to_prefix > 0 { most.min(to_prefix) } else { most };
        let at = self.fed;
        let tokens: Vec<_> = self.queue.drain(..most.min(self.queue.len())).collect();
        self.fed += u32::try_from(tokens.len()).expect("a chunk is at most a batch");
        let ready = if self.queue.is_empty() { Ready::ToChoose } else { Ready::ToFeed };
        Fed { at, certain: tokens.len(), tokens, ready }
    }

    /// Adds guesses to what was just fed, up to `most`.
    pub(crate) fn add_guess(&mut self, fed: &mut Fed, most: usize) {
        let room = self.end.saturating_sub(self.fed + 1).min(self.max_tokens.saturating_sub(self.written + 1));
        let most = most.min(room as usize);
        if fed.ready == Ready::ToChoose && self.writes() && most > 0 {
            let guessed = guess(&self.history, most);
            fed.tokens.extend_from_slice(guessed);
            self.guessed = guessed.iter().copied().collect();
        }
    }

    /// Compares what was chosen with what was guessed. All of it right: how many more tokens are in the cache, so that
    /// the logits after the last of them count. Otherwise the rest of the guess is to be forgotten.
    pub(crate) fn confirm(&mut self) -> Option<usize> {
        let mut right = 0;
        while self.guessed.front().is_some_and(|guessed| self.queue.front() == Some(guessed)) {
            self.guessed.pop_front();
            self.queue.pop_front();
            right += 1;
        }
        self.fed += u32::try_from(right).expect("a guess is a few tokens");
        (self.queue.is_empty() && right > 0).then_some(right)
    }

    /// Gives up on what is left of the guess: the position from which the cache is to be cleared, none when all is right.
    pub(crate) fn drop_guess(&mut self) -> Option<u32> {
        let left = !self.guessed.is_empty();
        self.guessed.clear();
        left.then_some(self.fed)
    }

    /// Chooses the next token from the logits after the last one fed.
    pub(crate) fn choose(&mut self, logits: &[f32], vocab: &LlamaVocab<'_>) -> Result<Next, Fault> {
        let reading = Reading::of(logits)
            .ok_or_else(|| Fault::Other("the model's output has values that are not numbers".to_owned()))?;
        let choice = match &mut self.grammar {
            Some(grammar) => grammar.choose(logits, &reading).map_err(schema_fault)?,
            None => Choice::Free(reading.best, Beside { lead: reading.lead(), removed: 0.0 }),
        };
        let index = match choice {
            Choice::Free(index, beside) => {
                self.tally.free(&reading, logits[index], beside);
                index
            }
            Choice::Forced(index) => {
                self.tally.forced();
                index
            }
        };
        self.first_token.get_or_insert_with(Instant::now);
        if self.floor.is_some_and(|floor| self.tally.is_under(&floor)) {
            return Err(Fault::Hopeless { tokens: self.written + 1 });
        }
        match self.way_out(index) {
            Some(ending) => self.end_with(&ending, vocab),
            None => self.take(index, vocab),
        }
    }

    /// Takes a token and what a schema forces after it.
    fn take(&mut self, index: usize, vocab: &LlamaVocab<'_>) -> Result<Next, Fault> {
        if let Some(end) = self.append(index, vocab)? {
            return Ok(end);
        }
        let forced = self.grammar.as_mut().map(Grammar::forced).unwrap_or_default();
        for index in forced {
            self.tally.forced();
            if let Some(end) = self.append(index, vocab)? {
                return Ok(end);
            }
        }
        Ok(Next::Continue)
    }

    /// Takes one token; how the answer ended with it, if it did.
    fn append(&mut self, index: usize, vocab: &LlamaVocab<'_>) -> Result<Option<Next>, Fault> {
        let token = LlamaToken(i32::try_from(index).expect("a vocabulary has fewer tokens"));
        self.written += 1;
        if vocab.is_eog(token) {
            return Ok(Some(Next::Ended(Stop::End)));
        }
        self.text.push(&vocab.token_to_piece(token, false, None));
        if let Some(grammar) = &mut self.grammar
            && grammar.accept(index).map_err(schema_fault)? == Completeness::Complete
        {
            return Ok(Some(Next::Ended(Stop::End)));
        }
        self.queue.push_back(token);
        self.history.push(token);
        if self.room() > 0 && self.text.len() < TEXT_BYTES_MAX {
            return Ok(None);
        }
        let valid = self.grammar.as_mut().is_none_or(Grammar::may_end);
        if valid { Ok(Some(Next::Ended(Stop::MaxTokens))) } else { Err(Fault::Cut) }
    }

    /// Tokens that may still be written.
    fn room(&self) -> u32 {
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        // The last token needs no cell: nothing is read after it.
        let window = (self.end + 1).saturating_sub(self.fed.saturating_add(waiting));
        self.max_tokens.saturating_sub(self.written).min(window)
    }

    /// The ending to take instead of this token, where after it none would fit any more but now one does.
    fn way_out(&mut self, index: usize) -> Option<Vec<usize>> {
        let room = self.room();
        let grammar = self.grammar.as_ref().filter(|_| room <= self.look_at)?;
        let after = grammar.ending_after(index).and_then(|ending| u32::try_from(ending.len() + 1).ok());
        match after.and_then(|len| room.checked_sub(len)) {
            Some(spare) => {
                self.look_at = room - (spare / ENDING_GROWTH_TOKENS).max(1);
                None
            }
            None => grammar.ending().filter(|ending| ending.len() <= room as usize),
        }
    }

    fn end_with(&mut self, ending: &[usize], vocab: &LlamaVocab<'_>) -> Result<Next, Fault> {
        for index in ending {
            if self.append(*index, vocab)?.is_some() {
                break;
            }
        }
        Ok(Next::Ended(Stop::MaxTokens))
    }

    /// Text since the last call, whole characters only.
    pub(crate) fn piece(&mut self) -> &str {
        self.text.piece()
    }

    /// Gives up on the begin of a character that will not be whole any more.
    pub(crate) fn close(&mut self) {
        self.text.close();
    }

    /// The answer.
    pub(crate) fn into_done(self, stop: Stop) -> Done {
        let now = Instant::now();
        let began = self.began.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        let (signals, logprobs) = self.tally.finish();
        Done {
            job: self.job,
            text: self.text.into_text().into(),
            signals,
            logprobs,
            prompt_tokens: self.prompt_tokens,
            reused_tokens: self.reused_tokens,
            completion_tokens: self.written,
            prefill_ms: millis(first_token - began),
            decode_ms: millis(now - first_token),
            stop,
        }
    }
}

/// What a sequence gave to feed.
pub(crate) struct Fed {
    /// The first position.
    pub(crate) at: u32,
    /// The tokens; after the certain ones come guesses.
    pub(crate) tokens: Vec<LlamaToken>,
    /// How many are certain.
    pub(crate) certain: usize,
    /// Whether the logits after the last certain one, and after each guess, are wanted.
    pub(crate) ready: Ready,
}

/// What a sequence is after it was fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// All is fed: the logits after the last token are wanted.
    ToChoose,
    /// More is to be fed.
    ToFeed,
}

fn schema_fault(fault: SchemaFault) -> Fault {
    Fault::Schema(fault.0)
}

/// To the nearest: cut off, half a millisecond on average would count as the gateway's and not as the engine's.
fn millis(duration: Duration) -> u64 {
    const HALF_MS: Duration = Duration::from_micros(500);
    u64::try_from((duration + HALF_MS).as_millis()).unwrap_or(u64::MAX)
}
