//! One run under way: what it still has to feed, what it wrote, what the logits said.

use crate::grammar::{Choice, Completeness, Grammar, SchemaFault};
use crate::prompt::PromptTokens;
use crate::protocol::{Done, Fault, Run, Signals, Stop};
use crate::reading::Reading;
use crate::text::Growing;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::LlamaVocab;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tidegate_schemas::{JobId, OUTCOME_BYTES_MAX};

/// Longest text of an answer, in bytes: a longer one could not be delivered.
const TEXT_BYTES_MAX: usize = OUTCOME_BYTES_MAX;

/// A run under way.
pub(crate) struct Sequence {
    pub(crate) job: JobId,
    pub(crate) stream: bool,
    /// Tokens that are not in the cache yet.
    queue: VecDeque<LlamaToken>,
    /// Tokens that are.
    fed: u32,
    /// Template and system prompt, until they are in the cache.
    prefix: Vec<LlamaToken>,
    prompt_tokens: u32,
    /// The last token that may be written, counted from the first of the prompt.
    end: u32,
    max_tokens: u32,
    written: u32,
    text: Growing,
    grammar: Option<Grammar>,
    signals: Signals,
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
            queue: prompt.tokens.into(),
            end: context_tokens,
            max_tokens: run.max_tokens.max(1),
            written: 0,
            text: Growing::default(),
            grammar,
            signals: Signals::default(),
            began: None,
            first_token: None,
        }
    }

    /// Template and system prompt.
    pub(crate) fn prefix(&self) -> &[LlamaToken] {
        &self.prefix
    }

    /// The prefix is in the cache already.
    pub(crate) fn skip_prefix(&mut self) {
        self.queue.drain(..self.prefix.len());
        self.fed = u32::try_from(self.prefix.len()).expect("a prefix is shorter than the context window");
    }

    /// Whether the cache holds the prefix and nothing else: the moment to keep it.
    pub(crate) fn stands_at_prefix(&self) -> bool {
        self.fed as usize == self.prefix.len() && !self.prefix.is_empty()
    }

    /// Whether one token is all that waits: the sequence writes.
    pub(crate) fn writes(&self) -> bool {
        self.written > 0 && self.queue.len() == 1
    }

    /// Takes up to `most` tokens to feed, not past the prefix: the first position, the tokens, whether none waits then.
    pub(crate) fn feed(&mut self, most: usize) -> (u32, Vec<LlamaToken>, Ready) {
        self.began.get_or_insert_with(Instant::now);
        let to_prefix = self.prefix.len().saturating_sub(self.fed as usize);
        let most = if to_prefix > 0 { most.min(to_prefix) } else { most };
        let at = self.fed;
        let tokens: Vec<_> = self.queue.drain(..most.min(self.queue.len())).collect();
        self.fed += u32::try_from(tokens.len()).expect("a chunk is at most a batch");
        (at, tokens, if self.queue.is_empty() { Ready::ToChoose } else { Ready::ToFeed })
    }

    /// Chooses the next token from the logits after the last one fed.
    pub(crate) fn choose(&mut self, logits: &[f32], vocab: &LlamaVocab<'_>) -> Result<Next, Fault> {
        let reading = Reading::of(logits)
            .ok_or_else(|| Fault::Other("the model's output has values that are not numbers".to_owned()))?;
        let choice = match &mut self.grammar {
            Some(grammar) => grammar.choose(logits, &reading).map_err(schema_fault)?,
            None => Choice::Free(reading.best),
        };
        let index = match choice {
            Choice::Free(index) => {
                count(&mut self.signals, &reading, logits[index]);
                index
            }
            Choice::Forced(index) => index,
        };
        self.first_token.get_or_insert_with(Instant::now);
        self.written += 1;
        self.take(LlamaToken(i32::try_from(index).expect("a vocabulary has fewer tokens")), index, vocab)
    }

    fn take(&mut self, token: LlamaToken, index: usize, vocab: &LlamaVocab<'_>) -> Result<Next, Fault> {
        if vocab.is_eog(token) {
            return Ok(Next::Ended(Stop::End));
        }
        self.text.push(&vocab.token_to_piece(token, false, None));
        if let Some(grammar) = &mut self.grammar
            && grammar.accept(index).map_err(schema_fault)? == Completeness::Complete
        {
            return Ok(Next::Ended(Stop::End));
        }
        let full = self.written >= self.max_tokens || self.fed >= self.end || self.text.len() >= TEXT_BYTES_MAX;
        if !full {
            self.queue.push_back(token);
            return Ok(Next::Continue);
        }
        let valid = self.grammar.as_mut().is_none_or(Grammar::may_end);
        if valid { Ok(Next::Ended(Stop::MaxTokens)) } else { Err(Fault::Cut) }
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
        let mut signals = self.signals;
        if signals.tokens > 0 {
            signals.mean_logprob = signals.sum_logprob / f64::from(signals.tokens);
        }
        Done {
            job: self.job,
            text: self.text.into_text().into(),
            signals,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.written,
            prefill_ms: millis(first_token - began),
            decode_ms: millis(now - first_token),
            stop,
        }
    }
}

/// What a sequence is after it was fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// All is fed: the logits after the last token are wanted.
    ToChoose,
    /// More is to be fed.
    ToFeed,
}

fn count(signals: &mut Signals, reading: &Reading, chosen: f32) {
    let logprob = reading.logprob(chosen);
    if signals.tokens == 0 {
        signals.first_margin = reading.margin();
        signals.first_entropy = reading.entropy;
    }
    signals.tokens += 1;
    signals.sum_logprob += logprob;
    signals.min_logprob = signals.min_logprob.min(logprob);
}

fn schema_fault(fault: SchemaFault) -> Fault {
    Fault::Schema(fault.0)
}

/// To the nearest: cut off, half a millisecond on average would count as the gateway's and not as the engine's.
fn millis(duration: Duration) -> u64 {
    const HALF_MS: Duration = Duration::from_micros(500);
    u64::try_from((duration + HALF_MS).as_millis()).unwrap_or(u64::MAX)
}
