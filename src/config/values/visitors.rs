//! How values are read from TOML: texts, lists of texts, and values of other types.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// Reads a string and makes something of it.
pub(super) struct Words<T> {
    pub(super) wanted: &'static str,
    pub(super) parse: fn(&str) -> Result<T, String>,
}

impl<T> Clone for Words<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Words<T> {}

impl<T> Visitor<'_> for Words<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

impl<'de, T> DeserializeSeed<'de> for Words<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

/// Reads a list of strings and makes something of each.
pub(super) struct List<T> {
    pub(super) wanted: &'static str,
    pub(super) each: Words<T>,
    pub(super) may_be_empty: bool,
    pub(super) most: Option<Most>,
}

/// How long a list may be, and why.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) number: usize,
    pub(super) why: &'static str,
}

impl<'de, T> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element_seed(self.each)? {
            all.push(one);
        }
        if all.is_empty() && !self.may_be_empty {
            return Err(A::Error::custom(format_args!(
                "the list is empty, expected {}",
                self.wanted
            )));
        }
        if let Some(Most { number, why }) = self.most
            && all.len() > number
        {
            return Err(A::Error::custom(format_args!(
                "the list holds {}, and {why} {number}",
                all.len()
            )));
        }
        Ok(all)
    }
}

/// Reads a value that is not a string.
pub(super) struct Plain<T> {
    pub(super) wanted: &'static str,
    pub(super) kind: PhantomData<T>,
}

impl Visitor<'_> for Plain<bool> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

impl Visitor<'_> for Plain<u16> {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u16, E> {
        match u16::try_from(value) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(E::custom(format_args!(
                "{value} is no TCP port: they go from 1 to 65535"
            ))),
        }
    }
}
