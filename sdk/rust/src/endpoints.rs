//! A service's methods as the registry's value tree, which is what Micro's own tools show and build
//! flags from: names and types as Micro's Go library writes them, nested six levels at most.

use std::collections::HashMap;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::wire::registry::{Endpoint, Value};

/// Recursive messages would never end otherwise; Micro stops here too.
const MAX_DEPTH: usize = 6;

/// The endpoints of `services` (full proto names), in the order of `sets`.
pub(crate) fn of(sets: &[FileDescriptorSet], services: &[&str]) -> Vec<Endpoint> {
    let types = Types::of(sets);
    let mut endpoints = Vec::new();
    for file in sets.iter().flat_map(|set| &set.file) {
        for service in &file.service {
            if !services.contains(&join(file.package(), service.name()).as_str()) {
                continue;
            }
            for method in &service.method {
                let mut metadata = HashMap::new();
                if method.client_streaming() || method.server_streaming() {
                    metadata.insert("stream".to_owned(), "true".to_owned());
                }
                let endpoint = Endpoint {
                    name: format!("{}.{}", service.name(), method.name()),
                    request: types.root(method.input_type()),
                    response: types.root(method.output_type()),
                    metadata,
                };
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
            }
        }
    }
    endpoints
}

/// `package.name`, or `name` where there is no package.
fn join(package: &str, name: &str) -> String {
    if package.is_empty() {
        name.to_owned()
    } else {
        format!("{package}.{name}")
    }
}

/// Messages and enums by their full name with a leading dot.
struct Types<'a> {
    messages: HashMap<String, Message<'a>>,
    enums: HashMap<String, String>,
}

struct Message<'a> {
    go_name: String,
    descriptor: &'a DescriptorProto,
}

impl<'a> Types<'a> {
    fn of(sets: &'a [FileDescriptorSet]) -> Self {
        let mut types = Self {
            messages: HashMap::new(),
            enums: HashMap::new(),
        };
        for file in sets.iter().flat_map(|set| &set.file) {
            let prefix = format!(".{}", file.package());
            types.add(
                prefix.trim_end_matches('.'),
                "",
                &file.message_type,
                &file.enum_type,
            );
        }
        types
    }

    fn add(
        &mut self,
        prefix: &str,
        outer: &str,
        messages: &'a [DescriptorProto],
        enums: &[EnumDescriptorProto],
    ) {
        for each in enums {
            self.enums.insert(
                format!("{prefix}.{}", each.name()),
                format!("{outer}{}", each.name()),
            );
        }
        for descriptor in messages {
            let full_name = format!("{prefix}.{}", descriptor.name());
            let go_name = format!("{outer}{}", descriptor.name());
            self.add(
                &full_name,
                &format!("{go_name}_"),
                &descriptor.nested_type,
                &descriptor.enum_type,
            );
            self.messages.insert(
                full_name,
                Message {
                    go_name,
                    descriptor,
                },
            );
        }
    }

    /// The tree of a request or response.
    fn root(&self, full_name: &str) -> Option<Value> {
        let message = self.messages.get(full_name)?;
        Some(Value {
            name: message.go_name.clone(),
            r#type: message.go_name.clone(),
            values: self.fields(message, 1),
        })
    }

    fn fields(&self, message: &Message<'_>, depth: usize) -> Vec<Value> {
        if depth >= MAX_DEPTH {
            return Vec::new();
        }
        let fields = message.descriptor.field.iter();
        // A member of a oneof has no field of its own in Go; an `optional` one has.
        fields
            .filter(|field| field.oneof_index.is_none() || field.proto3_optional())
            .map(|field| self.field(field, depth))
            .collect()
    }

    fn field(&self, field: &FieldDescriptorProto, depth: usize) -> Value {
        let mut value = Value {
            name: field.name().to_owned(),
            r#type: self.go_type(field),
            values: Vec::new(),
        };
        let message = self.messages.get(field.type_name());
        if field.label() == Label::Repeated {
            value.r#type = match message.filter(|m| is_map_entry(m)) {
                Some(entry) => self.go_map(entry),
                None => format!("[]{}", value.r#type),
            };
        } else if let Some(message) = message {
            value.values = self.fields(message, depth + 1);
        }
        value
    }

    fn go_map(&self, entry: &Message<'_>) -> String {
        let part = |number: i32| {
            let mut fields = entry.descriptor.field.iter();
            fields
                .find(|field| field.number() == number)
                .map_or_else(String::new, |field| self.go_type(field))
        };
        format!("map[{}]{}", part(1), part(2))
    }

    fn go_type(&self, field: &FieldDescriptorProto) -> String {
        let name = match field.r#type() {
            Type::Double => "float64",
            Type::Float => "float32",
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => "int64",
            Type::Uint64 | Type::Fixed64 => "uint64",
            Type::Int32 | Type::Sint32 | Type::Sfixed32 => "int32",
            Type::Uint32 | Type::Fixed32 => "uint32",
            Type::Bool => "bool",
            Type::String => "string",
            Type::Bytes => "[]uint8",
            Type::Enum => {
                return self
                    .enums
                    .get(field.type_name())
                    .cloned()
                    .unwrap_or_default();
            }
            Type::Message | Type::Group => {
                let message = self.messages.get(field.type_name());
                return message.map_or_else(String::new, |m| m.go_name.clone());
            }
        };
        name.to_owned()
    }
}

fn is_map_entry(message: &Message<'_>) -> bool {
    let options = message.descriptor.options.as_ref();
    options.is_some_and(|options| options.map_entry())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const PROTO: &str = r#"
        syntax = "proto3";
        package shop.v1;
        service Shop { rpc Buy(Order) returns (stream Receipt); }
        service Other { rpc Not(Order) returns (Receipt); }
        enum Pace { SLOW = 0; FAST = 1; }
        message Order {
          message Item { string name = 1; bytes photo = 2; }
          repeated Item items = 1;
          map<string, Item> by_name = 2;
          Pace pace = 3;
          Item first = 4;
          optional int64 tip = 5;
          oneof pay { string card = 6; bool cash = 7; }
          Order again = 8;
          repeated double weights = 9;
        }
        message Receipt {}
    "#;

    fn set() -> FileDescriptorSet {
        struct One;
        impl protox::file::FileResolver for One {
            fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
                protox::file::File::from_source(name, PROTO)
            }
        }
        let mut compiler = protox::Compiler::with_file_resolver(One);
        compiler.open_file("shop.proto").unwrap();
        FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
    }

    #[test]
    fn types_are_written_as_micro_writes_them() {
        let endpoints = of(&[set(), set()], &["shop.v1.Shop"]);
        assert_eq!(endpoints.len(), 1, "each once, and only those asked for");
        let endpoint = &endpoints[0];
        assert_eq!(endpoint.name, "Shop.Buy");
        assert_eq!(endpoint.metadata["stream"], "true");
        let request = endpoint.request.as_ref().unwrap();
        assert_eq!(
            (request.name.as_str(), request.r#type.as_str()),
            ("Order", "Order")
        );
        let shown: Vec<_> = request
            .values
            .iter()
            .map(|v| format!("{} {}", v.name, v.r#type))
            .collect();
        assert_eq!(
            shown,
            [
                "items []Order_Item",
                "by_name map[string]Order_Item",
                "pace Pace",
                "first Order_Item",
                "tip int64",
                "again Order",
                "weights []float64"
            ]
        );
        assert_eq!(request.values[3].values[1].r#type, "[]uint8");
    }

    #[test]
    fn a_recursive_message_ends() {
        let endpoints = of(&[set()], &["shop.v1.Shop"]);
        let mut value = endpoints[0].request.clone().unwrap();
        let mut levels = 1;
        while let Some(next) = value.values.into_iter().find(|v| v.name == "again") {
            value = next;
            levels += 1;
        }
        assert_eq!(levels, MAX_DEPTH);
    }
}
