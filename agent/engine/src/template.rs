//! Chat templates: the model's own Jinja text, run in minijinja with bounded work and output.
//!
//! Invariants: no text of a prompt is ever seen by the template. Contents stand in it as placeholders of private-use
//! characters and are put back after it ran, as [`Part::Content`]; the caller tokenises [`Part::Markup`] with control
//! tokens and contents without. A template that loses or repeats a part of the chat is refused, not obeyed.

use crate::jinja;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use std::io::Write;
use std::time::SystemTime;
use tidegate_schemas::{Message, Role};

/// Steps of the template interpreter per prompt: the longest known template takes under 2,000 for a short chat, and
/// some 300 more per message.
const FUEL: u64 = 200_000;
/// Longest output of a template, in bytes, contents not counted.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Longest template, in bytes: the longest known ones have some 20 KiB.
const TEMPLATE_BYTES_MAX: usize = 256 * 1024;
/// Around the number of a content in the template's output. Both are private-use characters.
const OPEN: char = '\u{F8F0}';
/// See [`OPEN`].
const CLOSE: char = '\u{F8F1}';
/// On both sides of a placeholder: white space that no template writes by itself (an em space). Where a template trims a
/// content, it trims this, and the content is trimmed when it is put back.
const EDGE: char = '\u{2003}';
/// Between a system prompt and the user text that it is folded into.
const FOLD: &str = "\n\n";

/// The template of models that have its tokens but do not bring one.
pub(crate) const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
    {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text of the template: control tokens count.
    Markup(String),
    /// Text of somebody: control tokens are only text.
    Content { role: Role, text: String },
}

/// Why a chat cannot be written as the model wants it. The messages have no text of the chat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("chat template is {0} bytes, limit is {TEMPLATE_BYTES_MAX}")]
    TooLong(usize),
    #[error("chat template does not compile: {0}")]
    Syntax(String),
    #[error("chat template fails: {0}")]
    Failed(String),
    #[error("chat template writes over {OUTPUT_BYTES_MAX} bytes")]
    Output,
    #[error("chat template shows message {index} ({role}) {times} times instead of once")]
    Lost { index: usize, role: &'static str, times: usize },
}

/// A compiled template.
pub(crate) struct Template {
    jinja: Environment<'static>,
    bos: String,
    eos: String,
}

impl Template {
    /// Compiles a template; `bos` and `eos` are the texts of the model's tokens.
    pub(crate) fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        Self::at(source, bos, eos, SystemTime::now)
    }

    /// The same with a clock of its own: some templates tell the model the date.
    pub(crate) fn at(source: &str, bos: &str, eos: &str, clock: fn() -> SystemTime) -> Result<Self, TemplateError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong(source.len()));
        }
        let mut jinja = jinja::environment(clock);
        jinja.set_fuel(Some(FUEL));
        let added = jinja.add_template_owned("chat", jinja::plain(source));
        added.map_err(|e| TemplateError::Syntax(reason(&e)))?;
        Ok(Self { jinja, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The chat as the model wants it, ready for the assistant's turn. Where the template knows no system role, the
    /// system prompt goes before the first user text.
    pub(crate) fn parts(&self, chat: &[Message]) -> Result<Vec<Part>, TemplateError> {
        let whole = self.render(chat);
        match (whole, folded(chat)) {
            (Err(TemplateError::Failed(_) | TemplateError::Lost { .. }), Some(folded)) => self.render(&folded),
            (whole, _) => whole,
        }
    }

    fn render(&self, chat: &[Message]) -> Result<Vec<Part>, TemplateError> {
        let messages: Vec<Value> = (chat.iter().enumerate())
            .map(|(i, m)| context! { role => role_name(m.role), content => stand_in(i, m) })
            .collect();
        let mut output = Bounded(Vec::new());
        let template = self.jinja.get_template("chat").map_err(|e| TemplateError::Failed(reason(&e)))?;
        let values = context! {
            messages, add_generation_prompt => true, bos_token => self.bos, eos_token => self.eos,
            tools => Value::from(()), documents => Value::from(()), enable_thinking => false,
        };
        match template.render_captured_to(values, &mut output) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WriteFailure => return Err(TemplateError::Output),
            Err(e) => return Err(TemplateError::Failed(reason(&e))),
        }
        let text = String::from_utf8(output.0).map_err(|_| TemplateError::Failed("output is not UTF-8".to_owned()))?;
        split(&text, chat)
    }
}

/// What a template sees of a content. An empty one is seen as such: templates ask for that.
fn stand_in(index: usize, message: &Message) -> String {
    if message.content.reveal().is_empty() { String::new() } else { format!("{EDGE}{OPEN}{index}{CLOSE}{EDGE}") }
}

/// Puts the contents back where their placeholders stand.
fn split(text: &str, chat: &[Message]) -> Result<Vec<Part>, TemplateError> {
    let mut parts = Vec::new();
    let mut shown: Vec<usize> = chat.iter().map(|message| usize::from(message.content.reveal().is_empty())).collect();
    let mut markup = String::new();
    let mut rest = text;
    while let Some((before, number, after)) = placeholder(rest) {
        let (before, begin) = before.strip_suffix(EDGE).map_or((before, Edge::Trimmed), |before| (before, Edge::Whole));
        let (after, end) = after.strip_prefix(EDGE).map_or((after, Edge::Trimmed), |after| (after, Edge::Whole));
        markup.push_str(before);
        if let (Some(message), Some(times)) = (chat.get(number), shown.get_mut(number)) {
            *times += 1;
            if !markup.is_empty() {
                parts.push(Part::Markup(std::mem::take(&mut markup)));
            }
            let text = trimmed(message.content.reveal(), begin, end).to_owned();
            parts.push(Part::Content { role: message.role, text });
        }
        rest = after;
    }
    markup.push_str(rest);
    if !markup.is_empty() {
        parts.push(Part::Markup(markup));
    }
    match shown.iter().position(|times| *times != 1) {
        None => Ok(parts),
        Some(index) => Err(TemplateError::Lost { index, role: role_name(chat[index].role), times: shown[index] }),
    }
}

/// What a template did to one side of a content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Whole,
    Trimmed,
}

fn trimmed(text: &str, begin: Edge, end: Edge) -> &str {
    let text = if begin == Edge::Trimmed { text.trim_start() } else { text };
    if end == Edge::Trimmed { text.trim_end() } else { text }
}

/// The text before the next placeholder, its number, the text after it.
fn placeholder(text: &str) -> Option<(&str, usize, &str)> {
    let (before, rest) = text.split_once(OPEN)?;
    let (number, after) = rest.split_once(CLOSE)?;
    Some((before, number.parse().unwrap_or(usize::MAX), after))
}

/// The chat without system messages: their texts stand before the first user text. None where there is nothing to do.
fn folded(chat: &[Message]) -> Option<Vec<Message>> {
    let system: Vec<&str> = (chat.iter()).filter(|m| m.role == Role::System).map(|m| m.content.reveal()).collect();
    let mut rest: Vec<Message> = chat.iter().filter(|m| m.role != Role::System).cloned().collect();
    let first = rest.iter_mut().find(|m| m.role == Role::User).filter(|_| !system.is_empty())?;
    first.content = format!("{}{FOLD}{}", system.join(FOLD), first.content.reveal()).into();
    Some(rest)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// Kind and detail of an error on one line; templates never see contents, so there is none in it.
fn reason(error: &Error) -> String {
    let line = error.line().map(|n| format!(" in line {n}")).unwrap_or_default();
    let detail = error.detail().map(|d| format!(": {d}")).unwrap_or_default();
    let text = format!("{}{detail}{line}", error.kind());
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Output that ends at a limit.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "template_tests.rs"]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
#[path = "template_goldens.rs"]
mod goldens;
