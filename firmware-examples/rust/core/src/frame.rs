//! What a gateway says, out of CBOR. Unknown fields are skipped; a field of a wrong type makes the frame none.

use crate::cbor::{Text, item_len};
use crate::show::{Said, Shown};
use minicbor::Decoder;
use minicbor::data::Type;

/// The answer's text, or its JSON as a CBOR item.
#[derive(Debug, Clone, Copy)]
pub enum Body<'b> {
    /// Free text.
    Text(Text<'b>),
    /// One item, whole.
    Json(&'b [u8]),
}

/// A frame of the topic `answer`.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'b> {
    /// On disk.
    Accepted {
        /// Prompts ahead of it.
        position: u64,
        /// Predicted time to the outcome.
        eta_ms: u64,
    },
    /// A piece of an answer that is being written.
    Token {
        /// A later attempt discards what was shown.
        attempt: u32,
        /// From 0, without gaps.
        seq: u32,
        /// The piece.
        text: Text<'b>,
    },
    /// The outcome, unless it is provisional.
    Answer {
        /// What was answered.
        body: Body<'b>,
        /// `local`, `cloud`, `peer` or `stored`.
        route: &'b str,
        /// Another answer follows.
        provisional: bool,
    },
    /// The outcome, or why there is none.
    Error {
        /// Why, as a word.
        code: &'b str,
        /// Why, in words.
        message: &'b str,
        /// When to try again.
        retry_after_ms: Option<u64>,
    },
}

/// What a gateway says to a prompt in bare text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'b> {
    /// The answer, as it is.
    Answer(&'b str),
    /// `!`, a code and why.
    Refusal(&'b str),
}

impl<'b> Line<'b> {
    /// `None`: it is no text.
    #[must_use]
    pub fn read(payload: &'b [u8]) -> Option<Self> {
        let text = core::str::from_utf8(payload).ok()?;
        Some(if text.starts_with('!') { Self::Refusal(text) } else { Self::Answer(text) })
    }

    /// The line that a device shows of it.
    #[must_use]
    pub fn said(self) -> Said<'b> {
        match self {
            Self::Answer(text) => Said::Answer("-", Shown::Bare(text)),
            Self::Refusal(text) => Said::BareError(text),
        }
    }
}

#[derive(Default)]
struct Fields<'b> {
    kind: Option<&'b str>,
    id: Option<&'b str>,
    text: Option<Text<'b>>,
    json: Option<&'b [u8]>,
    route: Option<&'b str>,
    code: Option<&'b str>,
    message: Option<&'b str>,
    provisional: Option<bool>,
    numbers: [Option<u64>; NUMBERS.len()],
}

const NUMBERS: [&str; 5] = ["position", "eta_ms", "attempt", "seq", "retry_after_ms"];

/// The prompt's id and the frame. `None`: it is none, or of a kind that is not known.
#[must_use]
pub fn decode(payload: &[u8]) -> Option<(Option<&str>, Frame<'_>)> {
    let fields = fields(payload)?;
    let [position, eta_ms, attempt, seq, retry_after_ms] = fields.numbers;
    let frame = match fields.kind? {
        "accepted" => Frame::Accepted { position: position?, eta_ms: eta_ms? },
        "token" => {
            Frame::Token { attempt: u32::try_from(attempt?).ok()?, seq: u32::try_from(seq?).ok()?, text: fields.text? }
        }
        "answer" => Frame::Answer {
            body: fields.text.map(Body::Text).or(fields.json.map(Body::Json))?,
            route: fields.route.unwrap_or("-"),
            provisional: fields.provisional?,
        },
        "error" => Frame::Error { code: fields.code?, message: fields.message.unwrap_or(""), retry_after_ms },
        _ => return None,
    };
    Some((fields.id, frame))
}

fn fields(payload: &[u8]) -> Option<Fields<'_>> {
    let mut found = Fields::default();
    if item_len(payload) != Some(payload.len()) {
        return None;
    }
    let mut decoder = Decoder::new(payload);
    let left = decoder.map().ok()?;
    let mut at = decoder.position();
    let mut seen = 0;
    while left.map_or(payload.get(at) != Some(&0xff), |count| seen < count) {
        let key_end = at + item_len(payload.get(at..)?)?;
        let value_end = key_end + item_len(payload.get(key_end..)?)?;
        // A key in chunks, or one that is no text, is none of ours.
        if let Ok(key) = Decoder::new(&payload[at..key_end]).str() {
            found.take(key, &payload[key_end..value_end])?;
        }
        at = value_end;
        seen += 1;
    }
    Some(found)
}

impl<'b> Fields<'b> {
    /// `None`: a field of ours has a wrong type.
    fn take(&mut self, key: &str, item: &'b [u8]) -> Option<()> {
        let mut decoder = Decoder::new(item);
        let place = match key {
            "kind" => &mut self.kind,
            "id" => &mut self.id,
            "route" => &mut self.route,
            "code" => &mut self.code,
            "message" => &mut self.message,
            "text" => {
                self.text = Some(Text::new(item)?);
                return Some(());
            }
            "json" => {
                self.json = Some(item);
                return Some(());
            }
            "provisional" => {
                self.provisional = Some(decoder.bool().ok()?);
                return Some(());
            }
            _ => {
                if let Some(place) = NUMBERS.iter().position(|name| *name == key) {
                    self.numbers[place] = match decoder.datatype().ok()? {
                        Type::Null => None,
                        _ => Some(decoder.u64().ok()?),
                    };
                }
                return Some(());
            }
        };
        *place = Some(decoder.str().ok()?);
        Some(())
    }
}
