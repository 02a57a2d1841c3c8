//! JSON (RFC 8259) to CBOR and back, for devices that would rather speak JSON on the wire: a prompt's CBOR becomes JSON,
//! an answer in JSON becomes CBOR and [`crate::decode`] reads it. One pass, no recursion, no allocator.
//!
//! Invariants: nesting deeper than [`DEPTH_MAX`], text behind the end, and what is no JSON are refused.

use crate::cbor::{DEPTH_MAX, item_len};
use core::fmt::Write;
use minicbor::data::Type;
use minicbor::encode::write::Cursor;
use minicbor::{Decoder, Encoder};

type Sink<'b> = Encoder<Cursor<&'b mut [u8]>>;

/// Bytes written. Objects and arrays get no length in front: what they hold is not known before it is read. `None`: no
/// JSON, or `out` is too small.
pub fn json_to_cbor(json: &str, out: &mut [u8]) -> Option<usize> {
    let mut source = Source { rest: json };
    let mut e = Encoder::new(Cursor::new(out));
    let mut closers = [' '; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let opened = match source.peek() {
            Some(open @ ('{' | '[')) => {
                *closers.get_mut(depth)? = if open == '{' { '}' } else { ']' };
                depth += 1;
                source.open(open, &mut e)?
            }
            _ => {
                source.scalar(&mut e)?;
                Opened::Ended
            }
        };
        if opened == Opened::Ended {
            source.go_on(&closers, &mut depth, &mut e)?;
        }
        if depth == 0 {
            return source.peek().is_none().then(|| e.writer().position());
        }
    }
}

#[derive(PartialEq)]
enum Opened {
    /// A value comes next.
    Holds,
    /// What follows a value comes next.
    Ended,
}

struct Source<'j> {
    rest: &'j str,
}

impl<'j> Source<'j> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.chars().next()
    }

    fn take(&mut self, expected: char) -> Option<()> {
        self.peek();
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }

    fn open(&mut self, open: char, e: &mut Sink<'_>) -> Option<Opened> {
        self.take(open)?;
        let close = if open == '{' { e.begin_map().ok().map(|_| '}') } else { e.begin_array().ok().map(|_| ']') }?;
        if self.peek() == Some(close) {
            return Some(Opened::Ended);
        }
        if open == '{' {
            self.key(e)?;
        }
        Some(Opened::Holds)
    }

    /// Behind a value: closes what ends here, as far as the next value.
    fn go_on(&mut self, closers: &[char], depth: &mut usize, e: &mut Sink<'_>) -> Option<()> {
        while *depth > 0 {
            let closer = closers[*depth - 1];
            if self.take(',').is_some() {
                return if closer == '}' { self.key(e) } else { Some(()) };
            }
            self.take(closer)?;
            e.end().ok()?;
            *depth -= 1;
        }
        Some(())
    }

    fn key(&mut self, e: &mut Sink<'_>) -> Option<()> {
        self.peek();
        self.string(e)?;
        self.take(':')
    }

    fn scalar(&mut self, e: &mut Sink<'_>) -> Option<()> {
        match self.rest.chars().next()? {
            '"' => self.string(e),
            't' => self.word("true", |e| e.bool(true).is_ok(), e),
            'f' => self.word("false", |e| e.bool(false).is_ok(), e),
            'n' => self.word("null", |e| e.null().is_ok(), e),
            _ => self.number(e),
        }
    }

    fn word(&mut self, word: &str, put: fn(&mut Sink<'_>) -> bool, e: &mut Sink<'_>) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        put(e).then_some(())
    }

    /// Twice through it: the length stands in front.
    fn string(&mut self, e: &mut Sink<'_>) -> Option<()> {
        let body = self.rest.strip_prefix('"')?;
        let (mut at, mut len) = (body, 0);
        while let Some(c) = next_char(&mut at) {
            len += c.len_utf8();
        }
        self.rest = at.strip_prefix('"')?;
        let mut at = body;
        put_text_head(e, len)?;
        while let Some(c) = next_char(&mut at) {
            put_raw(e, c.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
        Some(())
    }

    fn number(&mut self, e: &mut Sink<'_>) -> Option<()> {
        let end = self.rest.find(|c: char| !matches!(c, '+' | '-' | '.' | '0'..='9' | 'e' | 'E'));
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let whole = is_number(text)?;
        let digits = text.strip_prefix('-');
        match (whole, digits.unwrap_or(text).parse::<u64>()) {
            (true, Ok(value)) if digits.is_none() => e.u64(value).ok().map(drop),
            // CBOR's negative numbers go one further than those of 64 bits.
            (true, Ok(value)) if value > 0 => {
                let number = minicbor::data::Int::try_from(-i128::from(value)).ok()?;
                e.int(number).ok().map(drop)
            }
            _ => put_float(e, text.parse().ok()?),
        }
    }
}

/// RFC 8259 §6: whether the number is whole. `None`: it is none.
fn is_number(text: &str) -> Option<bool> {
    let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let rest = text.strip_prefix('-').unwrap_or(text);
    let len = digits(rest);
    if len == 0 || (len > 1 && rest.starts_with('0')) {
        return None;
    }
    let (mut rest, mut whole) = (&rest[len..], true);
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = digits(fraction);
        (rest, whole) = (fraction.get(len..).filter(|_| len > 0)?, false);
    }
    if let Some(power) = rest.strip_prefix(['e', 'E']) {
        let power = power.strip_prefix(['+', '-']).unwrap_or(power);
        let len = digits(power);
        (rest, whole) = (power.get(len..).filter(|_| len > 0)?, false);
    }
    rest.is_empty().then_some(whole)
}

/// The next character of a string. `None` at its closing quote, and where it is broken: there it stays.
fn next_char(at: &mut &str) -> Option<char> {
    let first = at.chars().next().filter(|c| *c != '"' && *c >= ' ')?;
    let (c, behind) = if first == '\\' { escaped(&at[1..])? } else { (first, &at[first.len_utf8()..]) };
    *at = behind;
    Some(c)
}

fn escaped(at: &str) -> Option<(char, &str)> {
    let plain = match at.chars().next()? {
        c @ ('"' | '\\' | '/') => c,
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode(&at[1..]),
        _ => return None,
    };
    Some((plain, &at[1..]))
}

fn unicode(at: &str) -> Option<(char, &str)> {
    let hex = |at: &str| {
        let digits = at.get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let code = hex(at)?;
    let rest = &at[4..];
    if !(0xd800..0xdc00).contains(&code) {
        return Some((char::from_u32(code)?, rest));
    }
    let low = hex(rest.strip_prefix("\\u")?).filter(|low| (0xdc00..0xe000).contains(low))?;
    Some((char::from_u32(0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00))?, &rest[6..]))
}

fn put_raw(e: &mut Sink<'_>, bytes: &[u8]) -> Option<()> {
    minicbor::encode::Write::write_all(e.writer_mut(), bytes).ok()
}

/// RFC 8949 §3.1, major type 3.
fn put_text_head(e: &mut Sink<'_>, len: usize) -> Option<()> {
    let bytes = u32::try_from(len).ok()?.to_be_bytes();
    match len {
        0..24 => put_raw(e, &[0x60 | bytes[3]]),
        24..0x100 => put_raw(e, &[0x78, bytes[3]]),
        0x100..0x1_0000 => put_raw(e, &[0x79, bytes[2], bytes[3]]),
        _ => put_raw(e, &[0x7a]).and_then(|()| put_raw(e, &bytes)),
    }
}

/// In the shortest form that holds it.
#[allow(clippy::cast_possible_truncation, reason = "what is lost is looked for")]
fn put_float(e: &mut Sink<'_>, value: f64) -> Option<()> {
    let single = value as f32;
    if f64::from(single).to_bits() != value.to_bits() {
        return e.f64(value).ok().map(drop);
    }
    let mut half = [0; 3];
    let halved = Encoder::new(&mut half[..]).f16(single).is_ok();
    if halved && Decoder::new(&half).f16().is_ok_and(|back| back.to_bits() == single.to_bits()) {
        return e.f16(single).ok().map(drop);
    }
    e.f32(single).ok().map(drop)
}

/// Bytes written. `None`: not one whole item, no form in JSON (bytes, keys that are no text), nested too deep, or `out`
/// is too small.
pub fn cbor_to_json(cbor: &[u8], out: &mut [u8]) -> Option<usize> {
    if item_len(cbor) != Some(cbor.len()) {
        return None;
    }
    let mut out = Text { out, len: 0 };
    let mut open = [Level::default(); DEPTH_MAX];
    let (mut depth, mut at) = (0, 0);
    loop {
        if depth > 0 && open[depth - 1].is_over(cbor.get(at)) {
            let level = open[depth - 1];
            at += usize::from(level.left.is_none());
            out.put(if level.map { "}" } else { "]" })?;
            depth -= 1;
        } else {
            if let Some(level) = depth.checked_sub(1).map(|top| &mut open[top]) {
                out.put(level.mark())?;
                if level.is_key() && !matches!(kind(&cbor[at..])?, Type::String | Type::StringIndef) {
                    return None;
                }
                level.count += 1;
            }
            let item = &cbor[at..];
            match Level::of(item)? {
                Some((level, head)) => {
                    out.put(if level.map { "{" } else { "[" })?;
                    *open.get_mut(depth)? = level;
                    depth += 1;
                    at += head;
                }
                None => {
                    let len = item_len(item)?;
                    out.scalar(&item[..len])?;
                    at += len;
                }
            }
        }
        if depth == 0 {
            return Some(out.len);
        }
    }
}

fn kind(item: &[u8]) -> Option<Type> {
    Decoder::new(item).datatype().ok()
}

/// A map or an array that is open.
#[derive(Clone, Copy, Default)]
struct Level {
    map: bool,
    /// Items that it holds; none: it ends where it ends.
    left: Option<u64>,
    count: u64,
}

impl Level {
    /// With the bytes of its head. `Some(None)`: it is none.
    fn of(item: &[u8]) -> Option<Option<(Self, usize)>> {
        let mut decoder = Decoder::new(item);
        let (map, left) = match decoder.datatype().ok()? {
            Type::Map | Type::MapIndef => (true, decoder.map().ok()?),
            Type::Array | Type::ArrayIndef => (false, decoder.array().ok()?),
            _ => return Some(None),
        };
        let left = left.map(|count| if map { 2 * count } else { count });
        Some(Some((Self { map, left, count: 0 }, decoder.position())))
    }

    fn is_over(&self, next: Option<&u8>) -> bool {
        self.left.map_or(next == Some(&0xff), |left| self.count == left)
    }

    fn is_key(&self) -> bool {
        self.map && self.count.is_multiple_of(2)
    }

    /// What stands before the next item.
    fn mark(&self) -> &'static str {
        match (self.count, self.map && !self.is_key()) {
            (_, true) => ":",
            (0, _) => "",
            _ => ",",
        }
    }
}

struct Text<'b> {
    out: &'b mut [u8],
    len: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.put(text).ok_or(core::fmt::Error)
    }
}

impl Text<'_> {
    fn put(&mut self, text: &str) -> Option<()> {
        let end = self.len + text.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Some(())
    }

    fn scalar(&mut self, item: &[u8]) -> Option<()> {
        let mut decoder = Decoder::new(item);
        match decoder.datatype().ok()? {
            Type::Bool => self.put(if decoder.bool().ok()? { "true" } else { "false" }),
            Type::Null | Type::Undefined => self.put("null"),
            Type::F16 => self.float(decoder.f16().ok()?.into()),
            Type::F32 => self.float(decoder.f32().ok()?.into()),
            Type::F64 => self.float(decoder.f64().ok()?),
            Type::String | Type::StringIndef => self.string(&mut decoder),
            _ => write!(self, "{}", i128::from(decoder.int().ok()?)).ok(),
        }
    }

    /// Rust prints the fewest digits that read back as the same number.
    fn float(&mut self, value: f64) -> Option<()> {
        if value.is_finite() { write!(self, "{value:?}").ok() } else { self.put("null") }
    }

    fn string(&mut self, decoder: &mut Decoder<'_>) -> Option<()> {
        self.put("\"")?;
        for chunk in decoder.str_iter().ok()? {
            chunk.ok()?.chars().try_for_each(|c| match c {
                '"' | '\\' => write!(self, "\\{c}").ok(),
                '\n' => self.put("\\n"),
                '\r' => self.put("\\r"),
                '\t' => self.put("\\t"),
                '\u{8}' => self.put("\\b"),
                '\u{c}' => self.put("\\f"),
                c if c < ' ' => write!(self, "\\u{:04x}", u32::from(c)).ok(),
                c => self.put(c.encode_utf8(&mut [0; 4])),
            })?;
        }
        self.put("\"")
    }
}
