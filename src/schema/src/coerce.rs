//! The forgiving second reading of a request: what a person plainly meant is made what the type
//! wants (`123` for a text, `"123"` for a number, one value for a list), and what cannot be meant is
//! refused with the field's name. Only requests that the strict reading refused come here.

use serde_json::{Map, Number, Value};

use crate::{
    error::{Error, quoted},
    shape::{Fields, Type},
};

/// The path of a field, for errors.
#[derive(Default)]
pub(crate) struct Path(String);

impl Path {
    /// A path that starts at `text`.
    pub(crate) fn at(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn within<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.0.len();
        if length > 0 && !name.starts_with('[') {
            self.0.push('.');
        }
        self.0.push_str(name);
        let out = f(self);
        self.0.truncate(length);
        out
    }

    fn wrong(&self, kind: &Type<'_>, value: &Value) -> Error {
        Error::WrongType {
            field: self.0.clone(),
            expected: kind.expectation(),
            found: match value {
                Value::Null => "null".into(),
                Value::Bool(b) => b.to_string(),
                Value::Number(n) => n.to_string(),
                Value::String(s) => quoted(s),
                Value::Array(_) => "a list".into(),
                Value::Object(_) => "an object".into(),
            },
        }
    }
}

/// Makes `value` what `kind` wants.
pub(crate) fn coerce(value: &mut Value, kind: &Type<'_>, path: &mut Path) -> Result<(), Error> {
    if value.is_null() {
        return Ok(());
    }
    match kind {
        Type::Free(_) => Ok(()),
        Type::Message(fields) => message(value, fields, kind, path),
        Type::List(inner) => list(value, inner, path),
        Type::Map(inner) => match value {
            Value::Object(map) => map.iter_mut().try_for_each(|(key, value)| {
                path.within(&format!("[{key}]"), |path| coerce(value, inner, path))
            }),
            other => Err(path.wrong(kind, other)),
        },
        _ => match scalar(value, kind) {
            Some(fitting) => {
                *value = fitting;
                Ok(())
            }
            None => Err(path.wrong(kind, value)),
        },
    }
}

fn message(
    value: &mut Value,
    fields: &Fields<'_>,
    kind: &Type<'_>,
    path: &mut Path,
) -> Result<(), Error> {
    let Value::Object(map) = value else {
        return Err(path.wrong(kind, value));
    };
    let mut renamed = Vec::new();
    for (key, value) in map.iter_mut() {
        let Some(field) = fields.find(key) else {
            // An extension's name stands in brackets; the strict reading knows it.
            if !fields.is_complete() || key.starts_with('[') {
                continue;
            }
            return path.within(key, |path| Err(unknown(path, fields)));
        };
        path.within(&field.name, |path| coerce(value, &field.kind, path))?;
        if field.name != *key {
            renamed.push((key.clone(), field.name));
        }
    }
    for (from, to) in renamed {
        if let Some(value) = map.remove(&from) {
            map.entry(to).or_insert(value);
        }
    }
    Ok(())
}

fn unknown(path: &Path, fields: &Fields<'_>) -> Error {
    Error::UnknownField {
        field: path.0.clone(),
        message: fields.name(),
        known: fields.names(),
    }
}

fn list(value: &mut Value, inner: &Type<'_>, path: &mut Path) -> Result<(), Error> {
    if let Value::Array(elements) = value {
        return elements.iter_mut().enumerate().try_for_each(|(i, value)| {
            path.within(&format!("[{i}]"), |path| coerce(value, inner, path))
        });
    }
    coerce(value, inner, path)?;
    *value = Value::Array(vec![value.take()]);
    Ok(())
}

/// `value` as the scalar that `kind` wants, or `None` when it cannot be one.
fn scalar(value: &Value, kind: &Type<'_>) -> Option<Value> {
    match (kind, value) {
        // A flag without a value means yes; an empty text in JSON means nothing.
        (Type::Bool, Value::String(text)) if text.is_empty() => None,
        (_, Value::String(text)) => from_text(kind, text),
        (Type::String, Value::Number(n)) => Some(Value::String(n.to_string())),
        (Type::String, Value::Bool(b)) => Some(Value::String(b.to_string())),
        (Type::Bool, Value::Bool(_)) => Some(value.clone()),
        (Type::Bool, Value::Number(n)) => match n.as_u64() {
            Some(0) => Some(Value::Bool(false)),
            Some(1) => Some(Value::Bool(true)),
            _ => None,
        },
        (Type::Float(_), Value::Number(_)) => Some(value.clone()),
        (Type::Int(bits, signed), Value::Number(n)) => match n.as_f64() {
            _ if in_range(n, *bits, *signed) => Some(value.clone()),
            // 1e3 and 5.0 are whole numbers as well.
            Some(float) if float.fract() == 0.0 && float.abs() < 9.0e15 => {
                from_text(kind, &format!("{float:.0}"))
            }
            _ => None,
        },
        (Type::Enum(_), Value::Number(n)) => i32::try_from(n.as_i64()?)
            .ok()
            .map(|n| Value::Number(n.into())),
        _ => None,
    }
}

fn in_range(n: &Number, bits: u8, signed: bool) -> bool {
    match (bits, signed) {
        (32, true) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (32, false) => n.as_u64().is_some_and(|n| u32::try_from(n).is_ok()),
        (_, true) => n.as_i64().is_some(),
        (_, false) => n.as_u64().is_some(),
    }
}

/// A scalar written as text: a query value, a form field, a flag, or a JSON string.
pub(crate) fn from_text(kind: &Type<'_>, text: &str) -> Option<Value> {
    match kind {
        Type::String | Type::Text(_) => Some(Value::String(text.to_owned())),
        Type::Bool => truth(text).map(Value::Bool),
        Type::Int(bits, signed) => {
            let number = whole(text.trim())?;
            in_range(&number, *bits, *signed).then_some(Value::Number(number))
        }
        Type::Float(_) => match text.trim() {
            word @ ("NaN" | "Infinity" | "-Infinity") => Some(Value::String(word.to_owned())),
            number => Number::from_f64(number.parse().ok()?).map(Value::Number),
        },
        Type::Enum(one) => {
            let text = text.trim();
            if let Ok(number) = text.parse::<i32>() {
                return Some(Value::Number(number.into()));
            }
            let exact = one.get_value_by_name(text);
            let value =
                exact.or_else(|| one.values().find(|v| v.name().eq_ignore_ascii_case(text)))?;
            Some(Value::String(value.name().to_owned()))
        }
        Type::Bytes => is_base64(text).then(|| Value::String(text.to_owned())),
        Type::Message(_) | Type::List(_) | Type::Map(_) | Type::Free(_) => None,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "on" | "" => Some(true),
        "false" | "f" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A whole number in base 10, or in base 16, 8 or 2 with its prefix.
fn whole(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.split_at_checked(2) {
        Some(("0x", rest)) => (16, rest),
        Some(("0o", rest)) => (8, rest),
        Some(("0b", rest)) => (2, rest),
        _ => (10, lower.as_str()),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if negative {
        Some(0i64.checked_sub_unsigned(magnitude)?.into())
    } else {
        Some(magnitude.into())
    }
}

/// Base64 in either alphabet, padded or not, as JSON readers of protobuf accept it.
fn is_base64(text: &str) -> bool {
    use base64::{
        Engine as _,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = |alphabet| GeneralPurpose::new(alphabet, LENIENT);
    engine(&base64::alphabet::STANDARD).decode(text).is_ok()
        || engine(&base64::alphabet::URL_SAFE).decode(text).is_ok()
}

/// The text of one query value, form field or flag as `kind` wants it: for a list its elements, for
/// a map its entries. `at` is its name, for errors.
pub(crate) fn value_of_text(kind: &Type<'_>, at: &str, text: &str) -> Result<Value, Error> {
    let wrong = |kind: &Type<'_>, text: &str| Error::WrongType {
        field: at.to_owned(),
        expected: kind.expectation(),
        found: quoted(text),
    };
    let json = |start: char| {
        text.trim_start()
            .starts_with(start)
            .then(|| serde_json::from_str::<Value>(text).ok())
            .flatten()
    };
    match kind {
        Type::List(inner) => {
            let mut elements = match (json('['), inner.as_ref()) {
                (Some(list), _) => list,
                (None, Type::Message(_) | Type::Map(_) | Type::Free(_)) if json('{').is_some() => {
                    Value::Array(json('{').into_iter().collect())
                }
                (None, Type::Message(_) | Type::Map(_)) => return Err(wrong(inner, text)),
                (None, Type::Free(_)) => text.split(',').map(loose).collect(),
                (None, _) if text.is_empty() => Value::Array(Vec::new()),
                (None, inner) => text
                    .split(',')
                    .map(|part| from_text(inner, part).ok_or_else(|| wrong(inner, part)))
                    .collect::<Result<Value, Error>>()?,
            };
            coerce(&mut elements, kind, &mut Path::at(at))?;
            Ok(elements)
        }
        Type::Map(_) => {
            let mut map = match json('{') {
                Some(map) => map,
                None => Value::Object(entries(text).ok_or_else(|| wrong(kind, text))?),
            };
            coerce(&mut map, kind, &mut Path::at(at))?;
            Ok(map)
        }
        Type::Message(_) => {
            let mut object = json('{').ok_or_else(|| wrong(kind, text))?;
            coerce(&mut object, kind, &mut Path::at(at))?;
            Ok(object)
        }
        Type::Free(_) => Ok(loose(text)),
        scalar => from_text(scalar, text).ok_or_else(|| wrong(scalar, text)),
    }
}

/// `a=1,b=2` as an object of texts.
fn entries(text: &str) -> Option<Map<String, Value>> {
    if text.trim().is_empty() {
        return Some(Map::new());
    }
    text.split(',')
        .map(|entry| {
            let (key, value) = entry.split_once('=')?;
            Some((key.trim().to_owned(), Value::String(value.to_owned())))
        })
        .collect()
}

/// JSON when it is JSON, else the text itself.
pub(crate) fn loose(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
