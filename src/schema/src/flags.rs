//! The leaves of a request, for the CLI's dynamic flags and for forms.

use crate::shape::{Fields, Type};

/// One leaf of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Field names from the root down, joined by `-`: `options-domain`, `user_id`.
    pub name: String,
    /// Go's name of the type as value trees write it: `string`, `[]int64`, `map[string]string`.
    pub type_name: String,
    /// May be given several times.
    pub repeated: bool,
    /// Takes `key=value` pairs or a JSON object.
    pub is_map: bool,
    /// The names of an enum's values, in order.
    pub enum_values: Vec<String>,
    /// The comment beside the field.
    pub doc: String,
}

const DEPTH: usize = 6;
const FLAGS: usize = 2_000;
/// Fields that are looked at: types that contain each other have few leaves and many branches.
const FIELDS: usize = 20_000;

/// The leaves of a message of type `root`.
pub(crate) fn of(root: &Type<'_>) -> Vec<Flag> {
    let mut flags = Vec::new();
    if let Type::Message(fields) = root {
        let mut left = FIELDS;
        collect(fields, "", 1, &mut flags, &mut left);
    }
    flags
}

fn collect(
    fields: &Fields<'_>,
    prefix: &str,
    depth: usize,
    flags: &mut Vec<Flag>,
    left: &mut usize,
) {
    for field in fields.all() {
        if flags.len() >= FLAGS || *left == 0 {
            return;
        }
        *left -= 1;
        let name = if prefix.is_empty() {
            field.name.clone()
        } else {
            format!("{prefix}-{}", field.name)
        };
        if let Type::Message(inner) = &field.kind {
            if depth < DEPTH {
                collect(inner, &name, depth + 1, flags, left);
            }
            continue;
        }
        let element = match &field.kind {
            Type::List(inner) | Type::Map(inner) => inner,
            other => other,
        };
        flags.push(Flag {
            type_name: field.go_type(),
            repeated: matches!(field.kind, Type::List(_)),
            is_map: matches!(field.kind, Type::Map(_)),
            enum_values: match element {
                Type::Enum(one) => one.values().map(|v| v.name().to_owned()).collect(),
                _ => Vec::new(),
            },
            doc: field.doc(),
            name,
        });
    }
}
