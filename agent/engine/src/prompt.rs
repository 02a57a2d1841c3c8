//! A run becomes tokens: markup with control tokens, contents without.

use crate::load::Loaded;
use crate::protocol::{Fault, Run};
use crate::template::Part;
use llama_cpp_2::token::LlamaToken;
use tidegate_schemas::{JobId, Message, Role};

/// The tokens of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptTokens {
    pub(crate) tokens: Vec<LlamaToken>,
    /// How many of them, from the first, stand before anything that is not template or system prompt; less than all.
    pub(crate) prefix: usize,
}

/// The tokens of a run, or why it cannot run here.
pub(crate) fn tokens(loaded: &Loaded, run: &Run) -> Result<PromptTokens, Fault> {
    let parts = loaded.template.parts(&chat(run)).map_err(|e| Fault::Other(e.to_string()))?;
    let prompt = tokenised(loaded, &parts);
    let count = u32::try_from(prompt.tokens.len()).unwrap_or(u32::MAX);
    // One token of the window is for the answer.
    if count >= loaded.context_tokens {
        return Err(Fault::TooLong { tokens: count, context_tokens: loaded.context_tokens });
    }
    if prompt.tokens.is_empty() {
        return Err(Fault::Other("chat template writes nothing".to_owned()));
    }
    Ok(prompt)
}

/// What every prompt of a task begins with; nothing where the chat template writes nothing before the user's words, or
/// leaves no room for them.
pub(crate) fn template_of(loaded: &Loaded, system: &str) -> Vec<LlamaToken> {
    let run = Run {
        job: JobId(0),
        system: system.to_owned(),
        messages: vec![Message { role: Role::User, content: ".".into() }],
        schema: None,
        max_tokens: 1,
        stream: false,
        floor: None,
    };
    match tokens(loaded, &run) {
        Ok(mut prompt) => {
            prompt.tokens.truncate(prompt.prefix);
            prompt.tokens
        }
        Err(fault) => {
            tracing::warn!(?fault, "a task's template is not computed ahead");
            Vec::new()
        }
    }
}

/// The task's system prompt and the messages, as one chat; system messages at the begin become one.
fn chat(run: &Run) -> Vec<Message> {
    let leading = run.messages.iter().take_while(|m| m.role == Role::System).count();
    let (system, rest) = run.messages.split_at(leading);
    let texts = std::iter::once(run.system.as_str()).chain(system.iter().map(|m| m.content.reveal()));
    let system = texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n\n");
    let first = (!system.is_empty()).then(|| Message { role: Role::System, content: system.into() });
    first.into_iter().chain(rest.iter().cloned()).collect()
}

fn tokenised(loaded: &Loaded, parts: &[Part]) -> PromptTokens {
    let vocab = loaded.model.vocab();
    let mut tokens = Vec::new();
    let mut prefix = None;
    for part in parts {
        match part {
            Part::Markup(text) => tokens.extend(vocab.tokenize(text.as_bytes(), false, true)),
            Part::Content { role, text } => {
                if *role != Role::System {
                    prefix.get_or_insert(tokens.len());
                }
                tokens.extend(vocab.tokenize(text.as_bytes(), false, false));
            }
        }
    }
    let mut prefix = prefix.unwrap_or(tokens.len());
    if vocab.should_add_bos() && vocab.bos().0 >= 0 && tokens.first() != Some(&vocab.bos()) {
        tokens.insert(0, vocab.bos());
        prefix += 1;
    }
    PromptTokens { prefix: prefix.min(tokens.len().saturating_sub(1)), tokens }
}
