//! Descriptors and messages come from tenants' services, so they may be made to do harm. What the
//! reflection library takes for granted is checked here before it sees it; a bug of it that is left
//! becomes an error of one call and not the end of a connection that carries others.
//!
//! Three things would end the whole node instead, and no unwinding stops them: a stack used up by
//! `Any` inside `Any` (each one starts its own count of depth), memory used up by defaults that are
//! written out for millions of empty messages, and the same for value trees (see `describe.rs`).

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};

use crate::describe;

/// Messages in `Any` in `Any`: real ones have one or two.
const ANY_DEPTH: usize = 8;
/// The most bytes of JSON that one message may become.
const OUTPUT: usize = 64 * 1024 * 1024;

/// What the library treats specially, and so relies on.
const WELL_KNOWN: [&str; 17] = [
    "Any",
    "Timestamp",
    "Duration",
    "Struct",
    "Value",
    "ListValue",
    "FieldMask",
    "Empty",
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
    "BytesValue",
];

/// Runs `f`; a panic in it is `None`.
pub(crate) fn unwinding<T>(f: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}

/// Refuses descriptors that are valid for the library and yet make it panic.
pub(crate) fn check(pool: &DescriptorPool) -> Result<(), String> {
    for message in pool.all_messages() {
        if message.is_map_entry() {
            check_map_entry(&message)
                .ok_or_else(|| format!("{} is no entry of a map", message.full_name()))?;
        }
    }
    let ours = DescriptorPool::global();
    for name in WELL_KNOWN {
        let name = format!("google.protobuf.{name}");
        if let Some(theirs) = pool.get_message_by_name(&name)
            && let Some(known) = ours.get_message_by_name(&name)
            && fields(&theirs) != fields(&known)
        {
            return Err(format!("{name} is not what everybody else means by it"));
        }
    }
    Ok(())
}

fn check_map_entry(message: &MessageDescriptor) -> Option<()> {
    let key = message.get_field(1)?;
    let value = message.get_field(2)?;
    let single = |field: &FieldDescriptor| field.cardinality() != Cardinality::Repeated;
    let plain_key = !matches!(
        key.kind(),
        Kind::Double | Kind::Float | Kind::Bytes | Kind::Message(_) | Kind::Enum(_)
    );
    (message.fields().len() == 2 && single(&key) && single(&value) && plain_key).then_some(())
}

/// Number, name and type of each field.
fn fields(message: &MessageDescriptor) -> Vec<(u32, String, String)> {
    message
        .fields()
        .map(|field| {
            let kind = match field.kind() {
                Kind::Message(message) => message.full_name().to_owned(),
                Kind::Enum(one) => one.full_name().to_owned(),
                other => format!("{other:?}"),
            };
            let cardinality = if field.is_map() {
                describe::field_type(&field)
            } else {
                format!("{:?}", field.cardinality())
            };
            (
                field.number(),
                field.name().to_owned(),
                format!("{kind} {cardinality}"),
            )
        })
        .collect()
}

/// Whether messages of these descriptors can contain `Any`.
pub(crate) fn knows_any(pool: &DescriptorPool) -> bool {
    pool.get_message_by_name("google.protobuf.Any").is_some()
}

/// Refuses a message that hides too deep a nesting in its `Any`s.
pub(crate) fn check_anys(message: &DynamicMessage) -> Result<(), String> {
    in_message(message, ANY_DEPTH)
}

fn in_message(message: &DynamicMessage, left: usize) -> Result<(), String> {
    let descriptor = prost_reflect::ReflectMessage::descriptor(message);
    if descriptor.full_name() == "google.protobuf.Any" {
        return in_any(message, &descriptor, left);
    }
    message
        .fields()
        .map(|(_, value)| value)
        .chain(message.extensions().map(|(_, value)| value))
        .try_for_each(|value| in_value(value, left))
}

fn in_value(value: &Value, left: usize) -> Result<(), String> {
    match value {
        Value::Message(inner) => in_message(inner, left),
        Value::List(values) => values.iter().try_for_each(|value| in_value(value, left)),
        Value::Map(values) => values.values().try_for_each(|value| in_value(value, left)),
        _ => Ok(()),
    }
}

fn in_any(any: &DynamicMessage, descriptor: &MessageDescriptor, left: usize) -> Result<(), String> {
    let left = left
        .checked_sub(1)
        .ok_or_else(|| format!("it has Any in Any more than {ANY_DEPTH} deep"))?;
    let url = any.get_field_by_name("type_url");
    let bytes = any.get_field_by_name("value");
    let (Some(url), Some(bytes)) = (
        url.as_deref().and_then(Value::as_str),
        bytes.as_deref().and_then(Value::as_bytes),
    ) else {
        return Ok(());
    };
    let name = url.rsplit('/').next().unwrap_or_default();
    match descriptor.parent_pool().get_message_by_name(name) {
        Some(inner) => {
            let payload =
                DynamicMessage::decode(inner, bytes.clone()).map_err(|e| e.to_string())?;
            in_message(&payload, left)
        }
        // The writer refuses it with its name.
        None => Ok(()),
    }
}

/// Text that ends before it uses up the memory.
#[derive(Default)]
pub(crate) struct Bounded {
    pub(crate) bytes: Vec<u8>,
}

impl io::Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > OUTPUT {
            return Err(io::Error::other(format!(
                "its JSON would be more than {OUTPUT} bytes"
            )));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn write_all(&mut self, more: &[u8]) -> io::Result<()> {
        self.write(more).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
