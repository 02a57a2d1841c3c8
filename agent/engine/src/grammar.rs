//! JSON Schemas as masks over the vocabulary, by llguidance.
//!
//! Invariants: a schema is compiled within limits of work and size; no error of the matcher leaves this file, because
//! it may repeat the output so far; the order of calls is `choose`, then `accept` of what was chosen.

use crate::canonical::{Cutter, Cutting};
use crate::copied;
use crate::load::Loaded;
use crate::protocol::Run;
use crate::reading::{Beside, Reading, best_allowed};
use llama_cpp_2::sampling::LlamaSampler;
use llguidance::{Matcher, ParserFactory, api::TopLevelGrammar};
use serde_json::{Value, json};
use std::sync::Arc;

/// Longest schema, in bytes: a task has no more.
const SCHEMA_BYTES_MAX: usize = tidegate_schemas::TASK_BYTES_MAX;
/// Compiled schemas that are kept: more than a gateway has tasks.
const COMPILED_MAX: usize = 16;
/// Work to build a lexer, in llguidance's units of 20 ns: 20 ms.
const LEXER_FUEL: u64 = 1_000_000;
/// Lexer states of one run, 1 to 2 KiB each: 50 MiB.
const LEXER_STATES_MAX: usize = 25_000;
/// Symbols of a grammar: some hundred KiB of memory.
const GRAMMAR_SIZE_MAX: usize = 50_000;
/// Longest reason, in characters.
const REASON_CHARS_MAX: usize = 200;
/// Bytes of forced text that are taken at once at most: what is longer comes with the next token.
const FORCED_BYTES_MAX: usize = 1_024;
/// Tokens of an ending at most that is looked for when an answer comes near its limit.
const ENDING_MAX: usize = 96;

/// Why a schema cannot be used, without text of prompt or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaFault(pub(crate) String);

/// The compiled schemas of one model.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: Option<ParserFactory>,
    /// Cuts forced text, where the tokenizer allows it.
    cutter: Option<Arc<Cutter>>,
    /// Least recently used first.
    compiled: Vec<(String, Matcher)>,
}

impl Grammars {
    /// A fresh matcher for this schema and run. One whose strings come from the prompt fits no other prompt, so it is not
    /// kept.
    pub(crate) fn grammar(&mut self, loaded: &Loaded, schema: &str, run: &Run) -> Result<Grammar, SchemaFault> {
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaFault(format!("schema is {} bytes, limit is {SCHEMA_BYTES_MAX}", schema.len())));
        }
        if let Some(bound) = copied::bound(schema, run)? {
            let matcher = self.matcher(loaded, bound)?;
            return Ok(self.begin(matcher));
        }
        if let Some(at) = self.compiled.iter().position(|(text, _)| text == schema) {
            let entry = self.compiled.remove(at);
            let matcher = entry.1.deep_clone();
            self.compiled.push(entry);
            return Ok(self.begin(matcher));
        }
        let matcher = self.compile(loaded, schema)?;
        if self.compiled.len() == COMPILED_MAX {
            self.compiled.remove(0);
        }
        self.compiled.push((schema.to_owned(), matcher.deep_clone()));
        Ok(self.begin(matcher))
    }

    fn begin(&self, matcher: Matcher) -> Grammar {
        Grammar { matcher, cutter: self.cutter.clone(), last: None }
    }

    fn compile(&mut self, loaded: &Loaded, schema: &str) -> Result<Matcher, SchemaFault> {
        let value = serde_json::from_str(schema).map_err(|e| SchemaFault(format!("schema is not JSON: {e}")))?;
        self.matcher(loaded, value)
    }

    fn matcher(&mut self, loaded: &Loaded, mut value: Value) -> Result<Matcher, SchemaFault> {
        match &mut value {
            Value::Object(fields) => {
                fields.entry("x-guidance").or_insert_with(compact);
            }
            Value::Bool(_) => {}
            _ => return Err(SchemaFault("schema is neither an object nor a boolean".to_owned())),
        }
        let parser = self.factory(loaded)?.create_parser(TopLevelGrammar::from_json_schema(value));
        let mut matcher = Matcher::new(parser);
        // The first mask shows a schema that nothing satisfies.
        let first = matcher.compute_mask().map(|mask| mask.is_zero());
        match (matcher.get_error(), first) {
            (None, Ok(false)) => Ok(matcher),
            (None, _) => Err(SchemaFault("schema allows no answer".to_owned())),
            (Some(error), _) => Err(SchemaFault(reason(&error))),
        }
    }

    fn factory(&mut self, loaded: &Loaded) -> Result<&ParserFactory, SchemaFault> {
        if self.factory.is_none() {
            let vocab = loaded.model.vocab();
            if vocab.eos().0 < 0 && vocab.eot().0 < 0 {
                return Err(SchemaFault("the model's vocabulary has no ending token".to_owned()));
            }
            let tokens = LlamaSampler::llguidance_tok_env(&loaded.model);
            self.cutter = (loaded.cutting == Cutting::Canonical).then(|| Arc::new(Cutter::new(&loaded.model, &tokens)));
            let mut factory = ParserFactory::new_simple(&tokens).map_err(|e| SchemaFault(reason(&e.to_string())))?;
            factory.quiet();
            let limits = factory.limits_mut();
            limits.initial_lexer_fuel = LEXER_FUEL;
            limits.max_lexer_states = LEXER_STATES_MAX;
            limits.max_grammar_size = GRAMMAR_SIZE_MAX;
            limits.verbose_errors = false;
            self.factory = Some(factory);
        }
        Ok(self.factory.as_ref().expect("made above"))
    }
}

/// No white space between the tokens of JSON, unless the schema says otherwise in `x-guidance`: then names and signs are
/// forced and cost no forward pass, and no model can fill its answer with nothing.
fn compact() -> Value {
    json!({ "whitespace_flexible": false, "item_separator": ",", "key_separator": ":" })
}

/// First line of an error, without control characters.
fn reason(error: &str) -> String {
    let line = error.lines().next().unwrap_or("unknown reason");
    line.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

/// What a schema leaves to choose from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Choice {
    /// The best of several, and what it left beside itself.
    Free(usize, Beside),
    /// The only one.
    Forced(usize),
}

/// A schema as far as one answer has come.
pub(crate) struct Grammar {
    matcher: Matcher,
    cutter: Option<Arc<Cutter>>,
    last: Option<u32>,
}

impl Grammar {
    /// The best token that the schema allows here.
    pub(crate) fn choose(&mut self, logits: &[f32], reading: &Reading) -> Result<Choice, SchemaFault> {
        let mask = self.matcher.compute_mask().map_err(|_| stuck())?;
        if mask.num_set() == 1 {
            return mask.first_bit_set().filter(|t| *t < logits.len()).map(Choice::Forced).ok_or_else(stuck);
        }
        let best = u32::try_from(reading.best).is_ok_and(|token| mask.is_allowed(token));
        let chosen = if best { Some((reading.best, reading.lead())) } else { best_allowed(logits, &mask) };
        chosen
            .map(|(best, lead)| Choice::Free(best, Beside { lead, removed: reading.removed(logits, &mask) }))
            .ok_or_else(stuck)
    }

    /// Takes what was chosen; whether the answer is complete with it.
    pub(crate) fn accept(&mut self, token: usize) -> Result<Completeness, SchemaFault> {
        let token = u32::try_from(token).map_err(|_| stuck())?;
        self.matcher.consume_token(token).map_err(|_| stuck())?;
        self.last = Some(token);
        Ok(if self.matcher.is_stopped() { Completeness::Complete } else { Completeness::Open })
    }

    /// The tokens that must follow, where the tokenizer is known to cut them so; they are not taken yet.
    pub(crate) fn forced(&mut self) -> Vec<usize> {
        let Some(cutter) = self.cutter.as_ref().filter(|_| !self.matcher.is_stopped()) else { return Vec::new() };
        let mut forced = self.matcher.compute_ff_bytes();
        forced.truncate(FORCED_BYTES_MAX);
        cutter.cut(self.last, &forced).into_iter().map(|token| token as usize).collect()
    }

    /// A short way to a valid end from here, in tokens, the token that ends the answer not among them; none when there
    /// is none of [`ENDING_MAX`]. It closes what is open as soon as the schema allows, which is the shortest way but for
    /// values that may be spelt in several ways.
    pub(crate) fn ending(&self) -> Option<Vec<usize>> {
        self.probe().close()
    }

    /// The same from where this token leads.
    pub(crate) fn ending_after(&self, token: usize) -> Option<Vec<usize>> {
        let mut probe = self.probe();
        match probe.accept(token).ok()? {
            Completeness::Complete => Some(Vec::new()),
            Completeness::Open => probe.close(),
        }
    }

    fn probe(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), cutter: None, last: None }
    }

    fn close(mut self) -> Option<Vec<usize>> {
        let mut ending = Vec::new();
        while ending.len() <= ENDING_MAX {
            if self.matcher.is_stopped() || self.may_end() {
                return Some(ending);
            }
            let token = self.closing()?;
            self.accept(token).ok()?;
            ending.push(token);
        }
        None
    }

    /// The allowed token that closes most.
    fn closing(&mut self) -> Option<usize> {
        let mask = self.matcher.compute_mask().ok()?;
        let env = self.matcher.tok_env().ok()?;
        let trie = env.tok_trie();
        let closers = CLOSERS.iter().filter_map(|text| trie.token_id(text));
        let closer = closers.into_iter().find(|token| mask.is_allowed(*token));
        closer.map(|token| token as usize).or_else(|| mask.first_bit_set())
    }

    /// Whether what stands so far is valid.
    pub(crate) fn may_end(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false)
    }
}

/// What closes a JSON value, or makes a short one, the best first.
const CLOSERS: [&[u8]; 10] = [b"\"}", b"]}", b"}}", b"}", b"]", b"\"", b",", b"0", b"[", b"{"];

/// Whether anything may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// Something may or must follow.
    Open,
    /// Nothing can follow.
    Complete,
}

fn stuck() -> SchemaFault {
    SchemaFault("schema allows no further token, or needs more work than its limits allow".to_owned())
}
