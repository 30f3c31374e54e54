//! Whether a request can go to a Go service byte for byte. Such services read JSON themselves but
//! stumble over a number where they want a text, which query strings and careless clients send. One
//! pass over the bytes, nothing allocated but keys.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize as _,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::shape::Type;

/// `Ok(false)` when `json` needs [`crate::coerce`] first.
pub(crate) fn fits(json: &[u8], kind: &Type<'_>) -> Result<bool, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let fits = Fit(kind).deserialize(&mut reader)?;
    reader.end()?;
    Ok(fits)
}

struct Fit<'k, 'a>(&'k Type<'a>);

impl<'de> DeserializeSeed<'de> for Fit<'_, '_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        match self.0 {
            Type::Free(_) => IgnoredAny::deserialize(reader).map(|_| true),
            _ => reader.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Fit<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(true)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(matches!(self.0, Type::Bool))
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(matches!(
            self.0,
            Type::Int(..) | Type::Float(_) | Type::Enum(_)
        ))
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(matches!(
            self.0,
            Type::Int(..) | Type::Float(_) | Type::Enum(_)
        ))
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(matches!(self.0, Type::Float(_)))
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        // Readers of protobuf's JSON take numbers as texts.
        Ok(!matches!(
            self.0,
            Type::Bool | Type::Message(_) | Type::List(_) | Type::Map(_)
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let free = Type::Free(String::new());
        let (element, mut fits) = match self.0 {
            Type::List(inner) => (inner.as_ref(), true),
            _ => (&free, false),
        };
        while let Some(one) = list.next_element_seed(Fit(element))? {
            fits &= one;
        }
        Ok(fits)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let free = Type::Free(String::new());
        let mut fits = matches!(self.0, Type::Message(_) | Type::Map(_));
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let field;
            let kind = match self.0 {
                Type::Message(fields) => {
                    field = fields.get(&key);
                    // A spelling that Go does not know has to be put right as well.
                    fits &= field.as_ref().is_none_or(|f| f.is_spelt(&key));
                    field.as_ref().map_or(&free, |field| &field.kind)
                }
                Type::Map(value) => value.as_ref(),
                _ => &free,
            };
            fits &= map.next_value_seed(Fit(kind))?;
        }
        Ok(fits)
    }
}
