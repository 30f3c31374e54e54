//! Query strings, forms and flags → a request as JSON, typed by the schema.

use serde_json::{Map, Value};

use crate::{
    coerce,
    error::Error,
    keys::{self, Step},
    shape::{Fields, Type},
};

/// What happens to a name that a Go service's value tree does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refuse,
    PassOn,
}

/// The request that `pairs` describe.
pub(crate) fn request(
    root: &Type<'_>,
    pairs: &[(String, String)],
    unknown: Unknown,
) -> Result<Value, Error> {
    let mut request = Value::Object(Map::new());
    for (key, text) in pairs {
        let segments = keys::segments(key);
        let (steps, kind) = match (root, segments) {
            (Type::Message(fields), Some(segments)) => match keys::place(fields, &segments) {
                Some(place) => place,
                None if unknown == Unknown::PassOn && !fields.is_complete() => {
                    (keys::free(&segments), Type::Free(String::new()))
                }
                None => return Err(no_field(fields, key)),
            },
            (Type::Free(_), Some(segments)) => (keys::free(&segments), root.clone()),
            (Type::Message(fields), None) => return Err(no_field(fields, key)),
            (other, _) => {
                return Err(Error::UnknownField {
                    field: key.clone(),
                    message: other.go_name(),
                    known: Vec::new(),
                });
            }
        };
        let value = coerce::value_of_text(&kind, key, text)?;
        let Some(place) = walk(&mut request, &steps) else {
            return Err(Error::WrongType {
                field: key.clone(),
                expected: "the next element of the list".to_owned(),
                found: "an element with a gap before it".to_owned(),
            });
        };
        put(place, &kind, value);
    }
    Ok(request)
}

fn no_field(fields: &Fields<'_>, key: &str) -> Error {
    Error::UnknownField {
        field: key.chars().take(200).collect(),
        message: fields.name(),
        known: fields.names(),
    }
}

/// The value at the end of `steps`, made on the way. `None` for an index that leaves a gap.
fn walk<'v>(root: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    let mut at = root;
    for step in steps {
        at = match step {
            Step::Key(name) => object(at)?.entry(name.clone()).or_insert(Value::Null),
            Step::Append => pushed(list(at)?)?,
            Step::Index(index) => {
                let elements = list(at)?;
                if *index == elements.len() {
                    pushed(elements)?
                } else {
                    elements.get_mut(*index)?
                }
            }
        };
    }
    Some(at)
}

/// A list grows, an object is filled, everything else is replaced: the last one wins.
fn put(place: &mut Value, kind: &Type<'_>, value: Value) {
    match (kind, value) {
        (Type::List(_), Value::Array(mut more)) => {
            if let Some(elements) = list(place) {
                elements.append(&mut more);
            }
        }
        (Type::Map(_) | Type::Message(_), Value::Object(more)) => {
            if let Some(map) = object(place) {
                map.extend(more);
            }
        }
        (_, value) => *place = value,
    }
}

/// `at` as an object; whatever else was there gives way.
fn object(at: &mut Value) -> Option<&mut Map<String, Value>> {
    if !at.is_object() {
        *at = Value::Object(Map::new());
    }
    at.as_object_mut()
}

fn list(at: &mut Value) -> Option<&mut Vec<Value>> {
    if !at.is_array() {
        *at = Value::Array(Vec::new());
    }
    at.as_array_mut()
}

fn pushed(elements: &mut Vec<Value>) -> Option<&mut Value> {
    elements.push(Value::Null);
    elements.last_mut()
}
