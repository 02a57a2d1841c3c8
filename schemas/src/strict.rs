//! What every decoder of this crate goes through, over serde's own rules.
//!
//! Invariants: a struct is a map with text keys, never a positional array or a map of field numbers, both of which
//! serde takes for one; no error message repeats text of the payload: serde's own quote the value that they refuse,
//! and that value may be a prompt.

use crate::variant::OneEntry;
use serde::de::{self, Expected, Unexpected};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use std::fmt;

/// Ends our own part of a message: what a decoder appends behind it (a position) is cut again.
const END: char = '\u{1f}';
/// Stands for a key that no field or variant has: a name that the sender made up is text of the payload.
const UNKNOWN_KEY: &str = "?";

/// A deserialiser, or a part of one, that keeps the invariants of this file.
pub(crate) struct Strict<T> {
    inner: T,
    /// While a key of a struct or enum is read: the fields or variants that it has.
    fields: Option<&'static [&'static str]>,
}

impl<T> Strict<T> {
    /// Puts the invariants over a deserialiser.
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, fields: None }
    }
}

/// Why a value does not fit. Its text is a predicate ("is a string, needed is an integer") where a field can stand
/// before it, and holds no text of the payload.
#[derive(Debug)]
pub(crate) struct Fault(String);

impl Fault {
    fn of(inner: impl fmt::Display) -> Self {
        let message = inner.to_string();
        match message.split_once(END) {
            Some((own, _)) => Self(own.to_owned()),
            None => Self(message),
        }
    }

    fn no_key(seen: &Unexpected<'_>) -> Self {
        Self(format!("has {} for a key, needed is text", kind(seen)))
    }

    fn no_variant(seen: &Unexpected<'_>, variants: &[&str]) -> Self {
        Self(format!("is {}, needed is one of {}", kind(seen), variants.join(", ")))
    }

    fn into_inner<E: de::Error>(self) -> E {
        E::custom(format_args!("{}{END}", self.0))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(seen: Unexpected<'_>, needed: &dyn Expected) -> Self {
        Self(format!("is {}, needed is {}", kind(&seen), plain(needed)))
    }

    fn invalid_value(seen: Unexpected<'_>, needed: &dyn Expected) -> Self {
        match seen {
            Unexpected::Unsigned(n) => Self(format!("is {n}, needed is {}", plain(needed))),
            Unexpected::Signed(n) => Self(format!("is {n}, needed is {}", plain(needed))),
            other => Self::invalid_type(other, needed),
        }
    }

    fn invalid_length(len: usize, needed: &dyn Expected) -> Self {
        Self(format!("has {len} elements, needed is {}", plain(needed)))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self(format!("is an unknown word, known are {}", known.join(", ")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self(format!("has an unknown field, known are {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!("has no {field}, which is needed"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(format!("has {field} twice"))
    }
}

fn kind(seen: &Unexpected<'_>) -> &'static str {
    match seen {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a fraction",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "a byte string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a map",
        _ => "something else",
    }
}

fn plain(needed: &dyn Expected) -> String {
    match needed.to_string().as_str() {
        "u8" => "an integer of 0 to 255".to_owned(),
        "u32" => "an integer of 0 to 4294967295".to_owned(),
        "i64" | "u64" | "usize" => "an integer".to_owned(),
        "f64" => "a number".to_owned(),
        "unit" => "the word alone".to_owned(),
        "a sequence" => "an array".to_owned(),
        other => other.to_owned(),
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = Fault;

    // Always "any": with a type hint the decoder itself would find the mismatch, and quote it.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.inner.deserialize_any(Seen { visitor, shape: Shape::Any }).map_err(Fault::of)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.inner.deserialize_option(Seen { visitor, shape: Shape::Any }).map_err(Fault::of)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        self.inner.deserialize_newtype_struct(name, Seen { visitor, shape: Shape::Any }).map_err(Fault::of)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.inner.deserialize_any(Seen { visitor, shape: Shape::Struct(fields) }).map_err(Fault::of)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.inner.deserialize_any(Seen { visitor, shape: Shape::Enum(variants) }).map_err(Fault::of)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.inner.deserialize_any(Seen { visitor, shape: Shape::Word(self.fields) }).map_err(Fault::of)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        // Not the visitor itself: a path through ignored maps would be made of the sender's own words.
        IgnoredAny::deserialize(self.inner).map_err(Fault::of)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map
    }
}

/// What the one who asked takes.
#[derive(Clone, Copy)]
enum Shape {
    /// Whatever its visitor takes.
    Any,
    /// A map with text keys.
    Struct(&'static [&'static str]),
    /// One of these words, or a map of one of them to its content.
    Enum(&'static [&'static str]),
    /// A word: the key of a struct with these fields, or one of these variants.
    Word(Option<&'static [&'static str]>),
}

/// The visitor of the one who asked, behind the invariants.
struct Seen<V> {
    visitor: V,
    shape: Shape,
}

impl<'de, V: Visitor<'de>> Seen<V> {
    /// Hands on what is neither text, array nor map.
    fn scalar<E: de::Error>(
        self,
        seen: Unexpected<'_>,
        visit: impl FnOnce(V) -> Result<V::Value, Fault>,
    ) -> Result<V::Value, E> {
        let result = match self.shape {
            Shape::Any => visit(self.visitor),
            Shape::Struct(_) => Err(de::Error::invalid_type(seen, &"a map")),
            Shape::Enum(variants) => Err(Fault::no_variant(&seen, variants)),
            Shape::Word(_) => Err(Fault::no_key(&seen)),
        };
        result.map_err(Fault::into_inner)
    }

    fn text<E: de::Error>(self, text: &str, visit: impl FnOnce(V) -> Result<V::Value, Fault>) -> Result<V::Value, E> {
        let result = match self.shape {
            Shape::Struct(_) => Err(de::Error::invalid_type(Unexpected::Str(text), &"a map")),
            Shape::Enum(_) => self.visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text)),
            Shape::Word(Some(fields)) if !fields.contains(&text) => self.visitor.visit_str(UNKNOWN_KEY),
            Shape::Any | Shape::Word(_) => visit(self.visitor),
        };
        result.map_err(Fault::into_inner)
    }
}

macro_rules! scalars {
    ($($visit:ident: $type:ty => $seen:ident as $wide:ty),+ $(,)?) => {$(
        fn $visit<E: de::Error>(self, v: $type) -> Result<V::Value, E> {
            self.scalar(Unexpected::$seen(v as $wide), |visitor| visitor.$visit(v))
        }
    )+};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Seen<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    scalars! {
        visit_bool: bool => Bool as bool,
        visit_i64: i64 => Signed as i64,
        visit_u64: u64 => Unsigned as u64,
        visit_f64: f64 => Float as f64,
    }

    fn visit_i128<E: de::Error>(self, v: i128) -> Result<V::Value, E> {
        self.scalar(Unexpected::Other("an integer"), |visitor| visitor.visit_i128(v))
    }

    fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<V::Value, E> {
        self.scalar(Unexpected::Bytes(v), |visitor| visitor.visit_bytes(v))
    }

    fn visit_borrowed_bytes<E: de::Error>(self, v: &'de [u8]) -> Result<V::Value, E> {
        self.scalar(Unexpected::Bytes(v), |visitor| visitor.visit_borrowed_bytes(v))
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.scalar(Unexpected::Unit, V::visit_none)
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.scalar(Unexpected::Unit, V::visit_unit)
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<V::Value, E> {
        self.text(v, |visitor| visitor.visit_str(v))
    }

    fn visit_borrowed_str<E: de::Error>(self, v: &'de str) -> Result<V::Value, E> {
        self.text(v, |visitor| visitor.visit_borrowed_str(v))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict::new(d)).map_err(Fault::into_inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict::new(d)).map_err(Fault::into_inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        let result = match self.shape {
            Shape::Any => self.visitor.visit_seq(Strict::new(seq)),
            Shape::Enum(variants) => Err(Fault::no_variant(&Unexpected::Seq, variants)),
            Shape::Struct(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"a map")),
            Shape::Word(_) => Err(Fault::no_key(&Unexpected::Seq)),
        };
        result.map_err(Fault::into_inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let result = match self.shape {
            Shape::Any => self.visitor.visit_map(Strict::new(map)),
            Shape::Struct(fields) => self.visitor.visit_map(Strict { inner: map, fields: Some(fields) }),
            Shape::Enum(variants) => {
                let map = Strict { inner: map, fields: Some(variants) };
                self.visitor.visit_enum(OneEntry(map))
            }
            Shape::Word(_) => Err(Fault::no_key(&Unexpected::Map)),
        };
        result.map_err(Fault::into_inner)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict { inner: d, fields: self.fields }).map_err(Fault::into_inner)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.inner.next_element_seed(Strict::new(seed)).map_err(Fault::of)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.inner.next_key_seed(Strict { inner: seed, fields: self.fields }).map_err(Fault::of)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        self.inner.next_value_seed(Strict::new(seed)).map_err(Fault::of)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// Where the fault is: the path of known fields, `.` for the whole message.
pub(crate) fn place(path: &serde_path_to_error::Path) -> String {
    let path = path.to_string();
    let known = path.trim_end_matches(UNKNOWN_KEY).trim_end_matches('.');
    if known.is_empty() { ".".to_owned() } else { known.to_owned() }
}

/// One sentence from a field's path (`.` for the whole message) and what is wrong with it.
pub(crate) fn sentence(path: &str, what: &str) -> String {
    let subject = if path == "." { "message" } else { path };
    let predicate = what.starts_with("is ") || what.starts_with("has ");
    format!("{subject}{}{what}", if predicate { " " } else { ": " })
}
