//! Numbers on the wire and their bounds: a number outside them is refused with its value and what is allowed.

use serde::{Deserialize, Deserializer, de};
use std::fmt::Display;

/// The version that all messages of this crate have.
pub(crate) const VERSION: u8 = 1;

/// Reads an integer of `min` to `max`.
pub(crate) fn within<'de, D, N>(d: D, min: N, max: N) -> Result<N, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<i64> + PartialOrd + Display,
{
    check(i64::deserialize(d)?, min, max)
}

/// Reads an integer of `min` to `max`, or null.
pub(crate) fn optional_within<'de, D, N>(d: D, min: N, max: N) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<i64> + PartialOrd + Display,
{
    Option::<i64>::deserialize(d)?.map(|value| check(value, min, max)).transpose()
}

fn check<E: de::Error, N: TryFrom<i64> + PartialOrd + Display>(value: i64, min: N, max: N) -> Result<N, E> {
    match N::try_from(value) {
        Ok(n) if min <= n && n <= max => Ok(n),
        _ => Err(E::custom(format_args!("is {value}, allowed are {min} to {max}"))),
    }
}

/// Reads the version of a message: only [`VERSION`] is spoken.
pub(crate) fn version<'de, D: Deserializer<'de>>(d: D) -> Result<u8, D::Error> {
    match i64::deserialize(d)? {
        v if v == i64::from(VERSION) => Ok(VERSION),
        v => Err(de::Error::custom(format_args!("is {v}, spoken is {VERSION}"))),
    }
}

/// A confidence as it is sent: 0 to 1 with 4 decimals, more would be noise. `None` for what is no number.
fn rounded(confidence: f64) -> Option<f64> {
    confidence.is_finite().then(|| (confidence.clamp(0.0, 1.0) * 10_000.0).round() / 10_000.0)
}

/// Whether there is no confidence to send.
pub(crate) fn no_confidence(confidence: &Option<f64>) -> bool {
    confidence.and_then(rounded).is_none()
}

/// `with = "number::confidence"` for a field of type `Option<f64>`.
pub(crate) mod confidence {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(confidence: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
        confidence.and_then(super::rounded).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        match Option::<f64>::deserialize(d)? {
            None => Ok(None),
            Some(value) if value.is_nan() => Ok(None),
            Some(value) if (0.0..=1.0).contains(&value) => Ok(Some(value)),
            Some(value) => Err(de::Error::custom(format_args!("is {value}, allowed are 0 to 1"))),
        }
    }
}
