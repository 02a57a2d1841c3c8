//! How a tree becomes one of our types: serde's own rules, and ours over them.
//!
//! Invariants: a struct is a map with text keys, never a positional array or a map of field numbers, both of which
//! serde takes for one; no error message repeats text of the payload: serde's own quote the value that they refuse,
//! and that value may be a prompt.

use crate::tree::Tree;
use crate::variant::OneEntry;
use serde::de::{self, Expected, Unexpected};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Stands for a key that no field or variant has: a name that the sender made up is text of the payload.
const UNKNOWN_KEY: &str = "?";

/// A value of one of our types.
///
/// # Errors
/// What does not fit, and where.
pub(crate) fn read<T: DeserializeOwned>(tree: Tree) -> Result<T, Fault> {
    T::deserialize(Reader::new(tree))
}

/// Why a value does not fit. `what` is a predicate ("is a string, needed is an integer") where a field can stand before
/// it, and holds no text of the payload.
#[derive(Debug)]
pub(crate) struct Fault {
    what: String,
    /// Known fields and places in lists, the innermost first.
    path: Vec<String>,
}

impl Fault {
    fn new(what: String) -> Self {
        Self { what, path: Vec::new() }
    }

    fn no_key(seen: &Unexpected<'_>) -> Self {
        Self::new(format!("has {} for a key, needed is text", kind(seen)))
    }

    fn no_variant(seen: &Unexpected<'_>, variants: &[&str]) -> Self {
        Self::new(format!("is {}, needed is one of {}", kind(seen), variants.join(", ")))
    }

    fn under(mut self, part: String) -> Self {
        self.path.push(part);
        self
    }

    /// The path of the field, `.` for the whole message, and what is wrong with it.
    pub(crate) fn into_parts(self) -> (String, String) {
        let mut path = String::new();
        for part in self.path.iter().rev() {
            if !path.is_empty() && !part.starts_with('[') {
                path.push('.');
            }
            path.push_str(part);
        }
        (if path.is_empty() { ".".to_owned() } else { path }, self.what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(seen: Unexpected<'_>, needed: &dyn Expected) -> Self {
        Self::new(format!("is {}, needed is {}", kind(&seen), plain(needed)))
    }

    fn invalid_value(seen: Unexpected<'_>, needed: &dyn Expected) -> Self {
        match seen {
            Unexpected::Unsigned(n) => Self::new(format!("is {n}, needed is {}", plain(needed))),
            Unexpected::Signed(n) => Self::new(format!("is {n}, needed is {}", plain(needed))),
            other => Self::invalid_type(other, needed),
        }
    }

    fn invalid_length(len: usize, needed: &dyn Expected) -> Self {
        Self::new(format!("has {len} elements, needed is {}", plain(needed)))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("is an unknown word, known are {}", known.join(", ")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(format!("has an unknown field, known are {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("has no {field}, which is needed"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("has {field} twice"))
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

/// A tree, or a part of one, that is about to become a value.
pub(crate) struct Reader {
    tree: Tree,
    /// While a key of a struct or enum is read: the fields or variants that it has.
    fields: Option<&'static [&'static str]>,
}

impl Reader {
    fn new(tree: Tree) -> Self {
        Self { tree, fields: None }
    }
}

impl<'de> Deserializer<'de> for Reader {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.tree {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(value),
            Tree::Unsigned(value) => visitor.visit_u64(value),
            Tree::Signed(value) => visitor.visit_i64(value),
            Tree::Wide(value) => visitor.visit_i128(value),
            Tree::Float(value) => visitor.visit_f64(value),
            Tree::Text(text) => visitor.visit_string(text),
            Tree::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Tree::List(items) => {
                let mut items = Items { left: items.into_iter(), at: 0 };
                let value = visitor.visit_seq(&mut items)?;
                match items.left.len() {
                    0 => Ok(value),
                    more => Err(Fault::new(format!("has {} elements, needed are {}", items.at + more, items.at))),
                }
            }
            Tree::Map(entries) => visitor.visit_map(Entries::new(entries, None)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if matches!(self.tree, Tree::Null) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tree {
            Tree::Map(entries) => visitor.visit_map(Entries::new(entries, Some(fields))),
            other => Err(de::Error::invalid_type(other.seen(), &"a map")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.tree {
            Tree::Text(text) => visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(text)),
            Tree::Map(entries) => visitor.visit_enum(OneEntry(Entries::new(entries, Some(variants)))),
            other => Err(Fault::no_variant(&other.seen(), variants)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.tree, self.fields) {
            (Tree::Text(text), Some(fields)) if !fields.contains(&text.as_str()) => visitor.visit_str(UNKNOWN_KEY),
            (Tree::Text(text), _) => visitor.visit_string(text),
            (other, _) => Err(Fault::no_key(&other.seen())),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map
    }
}

struct Items {
    left: std::vec::IntoIter<Tree>,
    /// Place of the next one.
    at: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(tree) = self.left.next() else { return Ok(None) };
        self.at += 1;
        seed.deserialize(Reader::new(tree)).map(Some).map_err(|fault| fault.under(format!("[{}]", self.at - 1)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// The entries of a map.
pub(crate) struct Entries {
    left: std::vec::IntoIter<(Tree, Tree)>,
    fields: Option<&'static [&'static str]>,
    /// The value of the key that was read last, and that key where it is known.
    value: Option<(Option<&'static str>, Tree)>,
}

impl Entries {
    fn new(entries: Vec<(Tree, Tree)>, fields: Option<&'static [&'static str]>) -> Self {
        Self { left: entries.into_iter(), fields, value: None }
    }

    fn known(&self, key: &Tree) -> Option<&'static str> {
        let Tree::Text(text) = key else { return None };
        self.fields?.iter().copied().find(|field| *field == text.as_str())
    }
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((key, value)) = self.left.next() else { return Ok(None) };
        self.value = Some((self.known(&key), value));
        seed.deserialize(Reader { tree: key, fields: self.fields }).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, tree) = self.value.take().expect("serde asks for a value after its key");
        let read = seed.deserialize(Reader::new(tree));
        read.map_err(|fault| match key {
            Some(key) => fault.under(key.to_owned()),
            None => fault,
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

/// One sentence from a field's path (`.` for the whole message) and what is wrong with it.
pub(crate) fn sentence(path: &str, what: &str) -> String {
    let subject = if path == "." { "message" } else { path };
    let predicate = what.starts_with("is ") || what.starts_with("has ");
    format!("{subject}{}{what}", if predicate { " " } else { ": " })
}
