//! An enum as a map of one variant to its content, under the invariants of [`crate::strict`].

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, VariantAccess, Visitor};
use std::marker::PhantomData;

/// A map of one entry: its key is the variant, its value the content.
pub(crate) struct OneEntry<A>(pub(crate) A);

impl<'de, A: MapAccess<'de>> OneEntry<A> {
    fn content<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, A::Error> {
        let value = self.0.next_value_seed(seed)?;
        match self.0.next_key::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => Err(A::Error::custom("is a map of several entries, needed is one entry")),
        }
    }
}

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for OneEntry<A> {
    type Error = A::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, Self), A::Error> {
        match self.0.next_key_seed(seed)? {
            Some(variant) => Ok((variant, self)),
            None => Err(A::Error::custom("is an empty map, needed is one entry")),
        }
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for OneEntry<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.content(PhantomData::<()>)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.content(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.content(Content { visitor, shape: Shape::Tuple(len) })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.content(Content { visitor, shape: Shape::Struct(fields) })
    }
}

enum Shape {
    Tuple(usize),
    Struct(&'static [&'static str]),
}

struct Content<V> {
    visitor: V,
    shape: Shape,
}

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Content<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        match self.shape {
            Shape::Tuple(len) => d.deserialize_tuple(len, self.visitor),
            Shape::Struct(fields) => d.deserialize_struct("", fields, self.visitor),
        }
    }
}
