//! Descriptors to the value trees that Micro's registry, CLI and web know (contract §4.2), with the
//! names that Go's generated code would have.
//!
//! Two things are better than what Go services say of themselves: members of a `oneof` are listed,
//! and a streaming method has its request tree.

use std::collections::HashMap;

use micro_proto::registry::{Endpoint, Value};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

/// Values below the root that are still described: the root is at depth 0, the deepest child at 5.
const DEPTH: usize = 6;
/// The most values of one schema. Types that contain each other grow as a power of the depth.
const VALUES: usize = 20_000;

/// How many more values a schema may have.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(VALUES)
    }

    fn take(&mut self) -> bool {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// The endpoint `name` with both trees and `stream=true` where it streams.
pub(crate) fn endpoint(name: &str, method: &MethodDescriptor, budget: &mut Budget) -> Endpoint {
    let mut metadata = HashMap::new();
    if method.is_server_streaming() || method.is_client_streaming() {
        metadata.insert("stream".to_owned(), "true".to_owned());
    }
    Endpoint {
        name: name.to_owned(),
        request: Some(root(&method.input(), budget)),
        response: Some(root(&method.output(), budget)),
        metadata,
    }
}

fn root(message: &MessageDescriptor, budget: &mut Budget) -> Value {
    let name = message_name(message);
    Value {
        values: children(message, 1, budget),
        r#type: name.clone(),
        name,
    }
}

fn children(message: &MessageDescriptor, depth: usize, budget: &mut Budget) -> Vec<Value> {
    if depth >= DEPTH {
        return Vec::new();
    }
    let mut values = Vec::new();
    for field in in_order(message) {
        if !budget.take() {
            break;
        }
        let nested = match field.kind() {
            Kind::Message(inner) if !field.is_list() && !field.is_map() => {
                children(&inner, depth + 1, budget)
            }
            _ => Vec::new(),
        };
        values.push(Value {
            name: field.name().to_owned(),
            r#type: field_type(&field),
            values: nested,
        });
    }
    values
}

/// Fields as they stand in the file; descriptors give them by number.
pub(crate) fn in_order(message: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> {
    let mut fields: Vec<FieldDescriptor> = message.fields().collect();
    fields.sort_by_key(|field| field.path().last().copied());
    fields.into_iter()
}

/// The Go type of a field: `string`, `[]Record`, `map[string]int64`, `[]uint8`.
pub(crate) fn field_type(field: &FieldDescriptor) -> String {
    let kind = field.kind();
    if field.is_map()
        && let Kind::Message(entry) = &kind
    {
        let key = kind_type(&entry.map_entry_key_field().kind());
        let value = kind_type(&entry.map_entry_value_field().kind());
        return format!("map[{key}]{value}");
    }
    if field.is_list() {
        return format!("[]{}", kind_type(&kind));
    }
    kind_type(&kind)
}

/// The Go type of one value.
pub(crate) fn kind_type(kind: &Kind) -> String {
    match kind {
        Kind::Double => "float64".into(),
        Kind::Float => "float32".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "int32".into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "int64".into(),
        Kind::Uint32 | Kind::Fixed32 => "uint32".into(),
        Kind::Uint64 | Kind::Fixed64 => "uint64".into(),
        Kind::Bool => "bool".into(),
        Kind::String => "string".into(),
        Kind::Bytes => "[]uint8".into(),
        Kind::Message(message) => message_name(message),
        Kind::Enum(one) => enum_name(one),
    }
}

/// `Outer_Inner`, as Go names it.
pub(crate) fn message_name(message: &MessageDescriptor) -> String {
    let own = camel_case(message.name());
    match message.parent_message() {
        Some(parent) => format!("{}_{own}", message_name(&parent)),
        None => own,
    }
}

fn enum_name(one: &EnumDescriptor) -> String {
    let own = camel_case(one.name());
    match one.parent_message() {
        Some(parent) => format!("{}_{own}", message_name(&parent)),
        None => own,
    }
}

/// Go's spelling of a protobuf name: `foo_bar` is `FooBar`, `foo_1` stays `Foo_1`.
fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    let mut start = true;
    while let Some(c) = chars.next() {
        if c == '_' && chars.peek().is_some_and(char::is_ascii_lowercase) {
            if out.is_empty() {
                out.push('X');
            }
            start = true;
        } else {
            out.push(if start { c.to_ascii_uppercase() } else { c });
            // A digit ends a word, so the next letter starts one.
            start = c.is_ascii_digit();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_as_go_spells_them() {
        for (name, go) in [
            ("Request", "Request"),
            ("call_request", "CallRequest"),
            ("v1_api", "V1Api"),
            ("foo_1", "Foo_1"),
            ("_x", "XX"),
        ] {
            assert_eq!(camel_case(name), go);
        }
    }
}
