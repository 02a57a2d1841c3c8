//! Forced text becomes tokens as the model's own tokenizer cuts them.
//!
//! Invariant: what is appended without a forward pass is cut as the model saw it cut in training, and stops before any
//! token that what follows could still make longer: llguidance looks only four tokens back for those, and vocabularies
//! with pieces such as `{"intent":"turn_on"` need more.

use llama_cpp_2::model::LlamaModel;
use llguidance::toktrie::{TokEnv, TokenId};
use std::sync::Arc;

/// Whether a piece of text is cut the same wherever it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// Byte-level BPE: yes, so forced text can be appended at once.
    Canonical,
    /// Others put a mark before the first word of whatever they are given: forced text is written token by token.
    Positional,
}

impl Cutting {
    /// What `tokenizer.ggml.model` of a GGUF file says.
    pub(crate) fn of(tokenizer: Option<&str>) -> Self {
        if tokenizer == Some("gpt2") { Self::Canonical } else { Self::Positional }
    }
}

/// The tokenizer of a model.
pub(crate) struct Cutter {
    model: Arc<LlamaModel>,
    pieces: TokEnv,
}

impl Cutter {
    pub(crate) fn new(model: &Arc<LlamaModel>, pieces: &TokEnv) -> Self {
        Self { model: Arc::clone(model), pieces: Arc::clone(pieces) }
    }

    /// Tokens of `forced` after the token `last`, as far as nothing that may follow can change them.
    pub(crate) fn cut(&self, last: Option<TokenId>, forced: &[u8]) -> Vec<TokenId> {
        let trie = self.pieces.tok_trie();
        let sure = (0..forced.len()).find(|at| trie.has_extensions(&forced[*at..])).unwrap_or(forced.len());
        let mut tokens = self.tokens_after(last, forced);
        let mut len = 0;
        let kept = tokens.iter().take_while(|token| {
            len += trie.token(**token).len();
            len <= sure
        });
        let kept = kept.count();
        tokens.truncate(kept);
        tokens
    }

    /// All tokens of the text; none when the tokenizer would not give the same bytes back.
    fn tokens_after(&self, last: Option<TokenId>, forced: &[u8]) -> Vec<TokenId> {
        let trie = self.pieces.tok_trie();
        let before = last.map(|token| trie.token(token).to_vec()).unwrap_or_default();
        let joined = self.tokens(&[&before[..], forced].concat());
        let tokens = match joined.split_first() {
            Some((first, rest)) if Some(*first) == last => rest.to_vec(),
            _ => self.tokens(forced),
        };
        if trie.decode_raw(&tokens) == forced { tokens } else { Vec::new() }
    }

    fn tokens(&self, bytes: &[u8]) -> Vec<TokenId> {
        // The end of a character at the begin of the text is no text; llama.cpp would replace it.
        if std::str::from_utf8(bytes).is_err() {
            return Vec::new();
        }
        let tokens = self.model.vocab().tokenize(bytes, false, false);
        tokens.into_iter().filter_map(|token| u32::try_from(token.0).ok()).collect()
    }
}
