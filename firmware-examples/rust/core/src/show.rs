//! One line for each thing that is said, the same in all examples; `\n` and `\` in texts escaped.

use crate::cbor::{Text, item_len};
use crate::frame::Body;
use core::fmt::{self, Write as _};
use minicbor::Decoder;
use minicbor::data::Type;

/// What a device says while it asks.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// The gateway has the prompt.
    Accepted(u64),
    /// What was streamed so far.
    Token(&'a str),
    /// An answer that another follows.
    Provisional(&'a str, Shown<'a>),
    /// The outcome.
    Answer(&'a str, Shown<'a>),
    /// Code and message.
    Error(&'a str, &'a str),
    /// Bare text, a refusal.
    BareError(&'a str),
}

/// What an answer says.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// Of a frame.
    Body(Body<'a>),
    /// The whole payload.
    Bare(&'a str),
}

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(position) => write!(f, "accepted {position}"),
            Self::Token(text) => write!(f, "token ").and_then(|()| line(f, text)),
            Self::Provisional(route, shown) => write!(f, "provisional {route} {shown}"),
            Self::Answer(route, shown) => write!(f, "answer {route} {shown}"),
            Self::Error(code, message) => write!(f, "error {code} ").and_then(|()| line(f, message)),
            Self::BareError(text) => write!(f, "error ").and_then(|()| line(f, text)),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(text) => line(f, text),
            Self::Body(Body::Text(text)) => text.chunks().try_for_each(|chunk| line(f, chunk)),
            Self::Body(Body::Json(item)) => json(f, item).map(|_| ()),
        }
    }
}

fn line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\\' => f.write_str("\\\\"),
        c => f.write_char(c),
    })
}

/// Writes the first item as JSON; how long it was. As deep as [`crate::DEPTH_MAX`]: the item was walked through before.
fn json(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> Result<usize, fmt::Error> {
    let len = item_len(bytes).ok_or(fmt::Error)?;
    let item = &bytes[..len];
    let mut d = Decoder::new(item);
    match d.datatype().map_err(|_| fmt::Error)? {
        Type::Map | Type::MapIndef => many(f, item, "{}")?,
        Type::Array | Type::ArrayIndef => many(f, item, "[]")?,
        Type::String | Type::StringIndef => {
            f.write_char('"')?;
            Text::new(item).into_iter().flat_map(Text::chunks).try_for_each(|chunk| quoted(f, chunk))?;
            f.write_char('"')?;
        }
        Type::Bool => write!(f, "{}", d.bool().map_err(|_| fmt::Error)?)?,
        Type::Null | Type::Undefined => f.write_str("null")?,
        Type::F16 | Type::F32 | Type::F64 => fraction(f, d.f64().map_err(|_| fmt::Error)?)?,
        _ => write!(f, "{}", d.int().map_err(|_| fmt::Error)?)?,
    }
    Ok(len)
}

fn fraction(f: &mut fmt::Formatter<'_>, x: f64) -> fmt::Result {
    if x.is_finite() { write!(f, "{x}") } else { f.write_str("null") }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| match c {
        '"' | '\\' => write!(f, "\\{c}"),
        c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c)),
        c => f.write_char(c),
    })
}

fn many(f: &mut fmt::Formatter<'_>, item: &[u8], brackets: &str) -> fmt::Result {
    let is_map = brackets == "{}";
    let mut d = Decoder::new(item);
    let count = if is_map { d.map() } else { d.array() }.map_err(|_| fmt::Error)?;
    let end = count.map(|count| count * if is_map { 2 } else { 1 });
    let (mut at, mut seen) = (d.position(), 0);
    f.write_str(&brackets[..1])?;
    while end.map_or(item.get(at) != Some(&0xff), |end| seen < end) {
        if seen > 0 {
            f.write_char(if is_map && seen % 2 == 1 { ':' } else { ',' })?;
        }
        at += json(f, &item[at..])?;
        seen += 1;
    }
    f.write_str(&brackets[1..])
}
