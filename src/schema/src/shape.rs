//! One view of a message type, whether it is known from descriptors or from a Go service's value
//! tree. Coercion, pairs and flags walk this and nothing else.

use micro_proto::registry::Value as Tree;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::{comments, describe};

/// A type as far as JSON is concerned.
#[derive(Clone, Debug)]
pub(crate) enum Type<'a> {
    Bool,
    /// Bits and whether it is signed.
    Int(u8, bool),
    /// Bits.
    Float(u8),
    String,
    Bytes,
    Enum(EnumDescriptor),
    Message(Fields<'a>),
    List(Box<Type<'a>>),
    /// The type of the values.
    Map(Box<Type<'a>>),
    /// A well-known type that JSON writes as a text: `Timestamp`, `Duration`, `FieldMask`.
    Text(&'static str),
    /// Any JSON: `Struct`, `Any`, and what a value tree does not tell. The name is Go's.
    Free(String),
}

/// The fields of a message type.
#[derive(Clone, Debug)]
pub(crate) enum Fields<'a> {
    Descriptor(MessageDescriptor),
    Tree(&'a Tree),
}

/// One field.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    /// The name in the `.proto` file.
    pub(crate) name: String,
    pub(crate) kind: Type<'a>,
    source: Option<FieldDescriptor>,
}

impl Type<'_> {
    /// The type of a whole message.
    pub(crate) fn of_message(message: &MessageDescriptor) -> Type<'static> {
        match message.full_name() {
            "google.protobuf.Timestamp" => Type::Text("Timestamp"),
            "google.protobuf.Duration" => Type::Text("Duration"),
            "google.protobuf.FieldMask" => Type::Text("FieldMask"),
            "google.protobuf.DoubleValue" => Type::Float(64),
            "google.protobuf.FloatValue" => Type::Float(32),
            "google.protobuf.Int64Value" => Type::Int(64, true),
            "google.protobuf.Int32Value" => Type::Int(32, true),
            "google.protobuf.UInt64Value" => Type::Int(64, false),
            "google.protobuf.UInt32Value" => Type::Int(32, false),
            "google.protobuf.BoolValue" => Type::Bool,
            "google.protobuf.StringValue" => Type::String,
            "google.protobuf.BytesValue" => Type::Bytes,
            "google.protobuf.Any"
            | "google.protobuf.Struct"
            | "google.protobuf.Value"
            | "google.protobuf.ListValue" => Type::Free(message.name().to_owned()),
            _ => Type::Message(Fields::Descriptor(message.clone())),
        }
    }

    fn of_kind(kind: &Kind) -> Type<'static> {
        match kind {
            Kind::Double => Type::Float(64),
            Kind::Float => Type::Float(32),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Type::Int(32, true),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Type::Int(64, true),
            Kind::Uint32 | Kind::Fixed32 => Type::Int(32, false),
            Kind::Uint64 | Kind::Fixed64 => Type::Int(64, false),
            Kind::Bool => Type::Bool,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Enum(one) if one.full_name() == "google.protobuf.NullValue" => {
                Type::Free("NullValue".to_owned())
            }
            Kind::Enum(one) => Type::Enum(one.clone()),
            Kind::Message(message) => Type::of_message(message),
        }
    }

    fn of_field(field: &FieldDescriptor) -> Type<'static> {
        let kind = field.kind();
        if field.is_map()
            && let Kind::Message(entry) = &kind
        {
            let value = Type::of_kind(&entry.map_entry_value_field().kind());
            return Type::Map(Box::new(value));
        }
        let one = Type::of_kind(&kind);
        if field.is_list() {
            return Type::List(Box::new(one));
        }
        one
    }

    /// The type of a value in a Go service's tree. What the tree does not tell is [`Type::Free`].
    pub(crate) fn of_tree(tree: &Tree) -> Type<'_> {
        if let Some(scalar) = Type::of_go(&tree.r#type) {
            return scalar;
        }
        if tree.values.is_empty() {
            return Type::Free(tree.r#type.clone());
        }
        let names = |wanted: &[&str]| {
            tree.values.len() == wanted.len()
                && tree.values.iter().zip(wanted).all(|(v, w)| v.name == *w)
        };
        match tree.r#type.as_str() {
            "Timestamp" if names(&["seconds", "nanos"]) => Type::Text("Timestamp"),
            "Duration" if names(&["seconds", "nanos"]) => Type::Text("Duration"),
            "Struct" if names(&["fields"]) => Type::Free("Struct".to_owned()),
            _ => Type::Message(Fields::Tree(tree)),
        }
    }

    /// The whole request of a Go service: a method whose tree is not known takes anything.
    pub(crate) fn of_tree_root(tree: Option<&Tree>) -> Type<'_> {
        match tree {
            // What a streaming handler says of its request (contract §4.2).
            Some(tree) if tree.values.is_empty() && tree.r#type == "Context" => {
                Type::Free(tree.r#type.clone())
            }
            Some(tree) => Type::Message(Fields::Tree(tree)),
            None => Type::Free(String::new()),
        }
    }

    fn of_go(name: &str) -> Option<Type<'static>> {
        let scalar = match name {
            "bool" => Type::Bool,
            "string" => Type::String,
            "int" | "int64" => Type::Int(64, true),
            "int8" | "int16" | "int32" => Type::Int(32, true),
            "uint" | "uint64" => Type::Int(64, false),
            "uint8" | "uint16" | "uint32" => Type::Int(32, false),
            "float32" => Type::Float(32),
            "float64" => Type::Float(64),
            "[]uint8" | "[]byte" => Type::Bytes,
            _ => {
                let of = |inner: &str| {
                    Type::of_go(inner).unwrap_or_else(|| Type::Free(inner.to_owned()))
                };
                if let Some(inner) = name.strip_prefix("[]") {
                    return Some(Type::List(Box::new(of(inner))));
                }
                let (_, value) = name.strip_prefix("map[")?.split_once(']')?;
                Type::Map(Box::new(of(value)))
            }
        };
        Some(scalar)
    }

    /// Go's name of the type, as the value tree writes it.
    pub(crate) fn go_name(&self) -> String {
        match self {
            Type::Bool => "bool".into(),
            Type::Int(bits, true) => format!("int{bits}"),
            Type::Int(bits, false) => format!("uint{bits}"),
            Type::Float(bits) => format!("float{bits}"),
            Type::String => "string".into(),
            Type::Bytes => "[]uint8".into(),
            Type::Enum(one) => one.name().to_owned(),
            Type::Message(fields) => fields.name(),
            Type::List(inner) => format!("[]{}", inner.go_name()),
            Type::Map(inner) => format!("map[string]{}", inner.go_name()),
            Type::Text(name) => (*name).to_owned(),
            Type::Free(name) => name.clone(),
        }
    }

    /// The type for a person: `a number`, `one of A, B`.
    pub(crate) fn expectation(&self) -> String {
        match self {
            Type::Bool => "true or false".into(),
            Type::Int(bits, true) => format!("a whole number of {bits} bits"),
            Type::Int(bits, false) => format!("a whole number of {bits} bits, not negative"),
            Type::Float(_) => "a number".into(),
            Type::String => "a text".into(),
            Type::Bytes => "bytes in base64".into(),
            Type::Enum(one) => {
                let names: Vec<String> = one.values().map(|v| v.name().to_owned()).collect();
                format!("one of {}", names.join(", "))
            }
            Type::Message(fields) => format!("an object ({})", fields.name()),
            Type::List(inner) => format!("a list, each element {}", inner.expectation()),
            Type::Map(inner) => format!("an object, each value {}", inner.expectation()),
            Type::Text("Timestamp") => "a time such as 2026-01-31T12:00:00Z".into(),
            Type::Text("Duration") => "a duration such as 1.5s".into(),
            Type::Text("FieldMask") => "field paths with commas between them".into(),
            Type::Text(name) => format!("a text ({name})"),
            Type::Free(_) => "JSON".into(),
        }
    }
}

impl<'a> Fields<'a> {
    /// Go's name of the message type.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Descriptor(message) => describe::message_name(message),
            Self::Tree(tree) => tree.r#type.clone(),
        }
    }

    /// Whether a name that is not among the fields is surely wrong. A Go service does not tell the
    /// members of a `oneof`.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Self::Descriptor(_))
    }

    /// The field of exactly this name, in the file's or in JSON's spelling.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'a>> {
        match self {
            Self::Descriptor(message) => message
                .get_field_by_name(name)
                .or_else(|| message.get_field_by_json_name(name))
                .map(|field| Field::of_descriptor(&field)),
            Self::Tree(tree) => tree
                .values
                .iter()
                .find(|value| value.name == name || same_word(&value.name, name))
                .map(Field::of_tree),
        }
    }

    /// The field of this name, ignoring case, `-` and `_` when no name fits exactly.
    pub(crate) fn find(&self, name: &str) -> Option<Field<'a>> {
        self.get(name).or_else(|| match self {
            Self::Descriptor(message) => message
                .fields()
                .find(|field| same_word(field.name(), name))
                .map(|field| Field::of_descriptor(&field)),
            Self::Tree(_) => None,
        })
    }

    /// All fields in the order of the file.
    pub(crate) fn all(&self) -> Vec<Field<'a>> {
        match self {
            Self::Descriptor(message) => describe::in_order(message)
                .map(|field| Field::of_descriptor(&field))
                .collect(),
            Self::Tree(tree) => tree.values.iter().map(Field::of_tree).collect(),
        }
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Descriptor(message) => describe::in_order(message)
                .map(|field| field.name().to_owned())
                .collect(),
            Self::Tree(tree) => tree.values.iter().map(|v| v.name.clone()).collect(),
        }
    }
}

impl<'a> Field<'a> {
    fn of_descriptor(field: &FieldDescriptor) -> Self {
        Self {
            name: field.name().to_owned(),
            kind: Type::of_field(field),
            source: Some(field.clone()),
        }
    }

    fn of_tree(tree: &'a Tree) -> Self {
        Self {
            name: tree.name.clone(),
            kind: Type::of_tree(tree),
            source: None,
        }
    }

    /// Whether a Go service knows the field by this name: the file's, or JSON's.
    pub(crate) fn is_spelt(&self, name: &str) -> bool {
        self.name == name || json_name(&self.name) == name
    }

    /// The comment beside the field.
    pub(crate) fn doc(&self) -> String {
        self.source.as_ref().map_or_else(String::new, |field| {
            let message = field.parent_message();
            comments::of(message.parent_file_descriptor_proto(), field.path())
        })
    }

    /// Go's name of the field's type, as the value tree writes it.
    pub(crate) fn go_type(&self) -> String {
        self.source
            .as_ref()
            .map_or_else(|| self.kind.go_name(), describe::field_type)
    }
}

/// `user_id` as JSON spells it: `userId`.
fn json_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// Equal when case, `-` and `_` do not count.
pub(crate) fn same_word(a: &str, b: &str) -> bool {
    folded(a).eq(folded(b))
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .map(|c| c.to_ascii_lowercase())
}

/// `text` in lower case without `-` and `_`.
pub(crate) fn fold(text: &str) -> String {
    folded(text).collect()
}
