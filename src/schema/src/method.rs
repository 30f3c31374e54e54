//! One method: its names, how it streams, and its messages between JSON and the instance's encoding.

use bytes::Bytes;
use micro_proto::registry::{Endpoint, Value as Tree};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};

use crate::{
    coerce, comments, describe,
    error::Error,
    fits, flags,
    flags::Flag,
    guard,
    pairs::{self, Unknown},
    shape::Type,
};

/// What an instance speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Protobuf: `application/grpc`.
    Proto,
    /// JSON: `application/grpc+json`.
    Json,
}

/// A method of a service.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Method {
    /// Micro's name, `Struct.Method`. Where two protobuf packages of one service have the same
    /// names, the later ones keep their package: `hello.v2.Greeter.Hello`.
    pub endpoint: String,
    /// What the instance expects as `:path`: `/pkg.Struct/Method`.
    pub path: String,
    /// What the instance speaks.
    pub codec: Codec,
    /// Takes a stream of requests.
    pub client_streaming: bool,
    /// Answers with a stream.
    pub server_streaming: bool,
    /// The comment beside the method.
    pub doc: String,
    request: Side,
    response: Side,
}

/// The type of one direction.
#[derive(Debug, Clone)]
enum Side {
    Message(Typed),
    Tree(Option<Tree>),
}

impl Side {
    fn kind(&self) -> Type<'_> {
        match self {
            Self::Message(typed) => Type::of_message(&typed.message),
            Self::Tree(tree) => Type::of_tree_root(tree.as_ref()),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Message(typed) => typed.message.full_name().to_owned(),
            Self::Tree(tree) => tree.as_ref().map_or_else(String::new, |t| t.r#type.clone()),
        }
    }
}

/// A message type.
#[derive(Debug, Clone)]
struct Typed {
    message: MessageDescriptor,
    /// Whether a message may contain `Any`.
    any: bool,
}

impl From<MessageDescriptor> for Typed {
    fn from(message: MessageDescriptor) -> Self {
        Self {
            any: guard::knows_any(message.parent_pool()),
            message,
        }
    }
}

/// Micro's JSON: names as in the file, defaults written out (contract §3.2).
const WRITE: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false);

impl Method {
    pub(crate) fn of_descriptor(endpoint: String, method: &MethodDescriptor) -> Self {
        let service = method.parent_service();
        Self {
            endpoint,
            path: format!("/{}/{}", service.full_name(), method.name()),
            codec: Codec::Proto,
            client_streaming: method.is_client_streaming(),
            server_streaming: method.is_server_streaming(),
            doc: comments::of(service.parent_file_descriptor_proto(), method.path()),
            request: Side::Message(method.input().into()),
            response: Side::Message(method.output().into()),
        }
    }

    /// The method behind an endpoint of a Go service; `None` for a subscriber and for a name that
    /// cannot be called.
    pub(crate) fn of_endpoint(endpoint: &Endpoint) -> Option<Self> {
        if endpoint
            .metadata
            .get("subscriber")
            .is_some_and(|v| v == "true")
        {
            return None;
        }
        let (service, method) = endpoint.name.rsplit_once('.')?;
        let callable = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if !callable(service) || !callable(method) {
            return None;
        }
        // Go services open every stream in both directions and do not say which they use.
        let streams = endpoint.metadata.get("stream").is_some_and(|v| v == "true");
        Some(Self {
            endpoint: endpoint.name.clone(),
            path: format!("/{service}/{method}"),
            codec: Codec::Json,
            client_streaming: streams,
            server_streaming: streams,
            doc: endpoint
                .metadata
                .get("description")
                .cloned()
                .unwrap_or_default(),
            request: Side::Tree(endpoint.request.clone()),
            response: Side::Tree(endpoint.response.clone()),
        })
    }

    /// Whether either direction is a stream.
    pub fn is_streaming(&self) -> bool {
        self.client_streaming || self.server_streaming
    }

    /// The full name of the request type; Go's name for a Go service, empty when it is not known.
    pub fn request_name(&self) -> String {
        self.request.name()
    }

    /// The full name of the response type; Go's name for a Go service, empty when it is not known.
    pub fn response_name(&self) -> String {
        self.response.name()
    }

    /// A request in JSON → the bytes of one message in [`Method::codec`]. An empty text and `null`
    /// are the empty message.
    ///
    /// # Errors
    /// `Invalid`, naming the field that the message does not have or that has the wrong type.
    pub fn message_from_json(&self, json: &[u8]) -> Result<Bytes, Error> {
        from_json(&self.request, json)
    }

    /// The bytes of one response message → JSON: the file's names, 64-bit integers as texts, enums
    /// by name, bytes in base64, defaults written out.
    ///
    /// # Errors
    /// When the bytes do not fit the service's descriptors.
    pub fn json_from_message(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        to_json(&self.response, message)
    }

    /// The bytes of one request message → JSON, for a target that wants JSON.
    ///
    /// # Errors
    /// When the bytes do not fit the service's descriptors.
    pub fn request_json_from_message(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        to_json(&self.request, message)
    }

    /// A response in JSON → the bytes of one message, for a caller that wants protobuf.
    ///
    /// # Errors
    /// When the JSON does not fit the service's descriptors.
    pub fn message_from_response_json(&self, json: &[u8]) -> Result<Bytes, Error> {
        from_json(&self.response, json)
    }

    /// Flags or form fields → the request as typed JSON. Names are matched against the request's
    /// fields (`options.domain`, `options[domain]`, `options-domain`, `options_domain`); lists by
    /// repetition, `tags[]` or commas; maps as `labels[key]=value`, `labels=key=value` or a JSON
    /// object; enums by name or number; an empty value makes a bool true.
    ///
    /// # Errors
    /// `Invalid`, naming the field that is unknown or has the wrong type.
    pub fn request_json_from_pairs(
        &self,
        pairs: &[(String, String)],
    ) -> Result<serde_json::Value, Error> {
        pairs::request(&self.request.kind(), pairs, Unknown::Refuse)
    }

    /// As [`Method::request_json_from_pairs`], for query strings: what a Go service's value tree does
    /// not have is passed on to it, because such a tree is silent about the members of a `oneof`.
    ///
    /// # Errors
    /// `Invalid`, naming the field that is unknown or has the wrong type.
    pub fn request_json_from_query(
        &self,
        pairs: &[(String, String)],
    ) -> Result<serde_json::Value, Error> {
        pairs::request(&self.request.kind(), pairs, Unknown::PassOn)
    }

    /// The leaves of the request, in the order of the file.
    pub fn flags(&self) -> Vec<Flag> {
        flags::of(&self.request.kind())
    }

    pub(crate) fn describe(
        &self,
        method: &MethodDescriptor,
        budget: &mut describe::Budget,
    ) -> Endpoint {
        describe::endpoint(&self.endpoint, method, budget)
    }
}

fn is_empty(json: &[u8]) -> bool {
    matches!(json.trim_ascii(), b"" | b"null")
}

fn from_json(side: &Side, json: &[u8]) -> Result<Bytes, Error> {
    guard::unwinding(|| read(side, json)).unwrap_or_else(|| {
        Err(Error::Json {
            message: side.name(),
            reason: CONFUSED.to_owned(),
        })
    })
}

const CONFUSED: &str = "it cannot be translated with the service's descriptors";

fn read(side: &Side, json: &[u8]) -> Result<Bytes, Error> {
    match side {
        Side::Message(_) if is_empty(json) => Ok(Bytes::new()),
        Side::Tree(_) if is_empty(json) => Ok(Bytes::from_static(b"{}")),
        Side::Message(typed) => match strict(&typed.message, json) {
            Ok(bytes) => Ok(bytes),
            Err(_) => forgiving(side, &typed.message, json),
        },
        Side::Tree(_) => {
            let kind = side.kind();
            if fits::fits(json, &kind).map_err(|e| unreadable(side, &e))? {
                return Ok(Bytes::copy_from_slice(json));
            }
            let value = coerced(side, &kind, json)?;
            serde_json::to_vec(&value)
                .map(Bytes::from)
                .map_err(|e| unreadable(side, &e))
        }
    }
}

/// Straight from the bytes into the message.
fn strict(message: &MessageDescriptor, json: &[u8]) -> Result<Bytes, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let dynamic = DynamicMessage::deserialize(message.clone(), &mut reader)?;
    reader.end()?;
    Ok(dynamic.encode_to_vec().into())
}

fn forgiving(side: &Side, message: &MessageDescriptor, json: &[u8]) -> Result<Bytes, Error> {
    let value = coerced(side, &side.kind(), json)?;
    DynamicMessage::deserialize(message.clone(), value)
        .map(|dynamic| dynamic.encode_to_vec().into())
        .map_err(|e| unreadable(side, &e))
}

fn coerced(side: &Side, kind: &Type<'_>, json: &[u8]) -> Result<serde_json::Value, Error> {
    let mut value = serde_json::from_slice(json).map_err(|e| unreadable(side, &e))?;
    coerce::coerce(&mut value, kind, &mut coerce::Path::default())?;
    Ok(value)
}

fn unreadable(side: &Side, error: &serde_json::Error) -> Error {
    Error::Json {
        message: side.name(),
        reason: error.to_string(),
    }
}

fn to_json(side: &Side, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    match side {
        Side::Message(typed) => guard::unwinding(|| write(typed, bytes))
            .unwrap_or_else(|| Err(CONFUSED.to_owned()))
            .map_err(|reason| Error::Message {
                message: side.name(),
                reason,
            }),
        Side::Tree(_) if bytes.is_empty() => Ok(b"{}".to_vec()),
        Side::Tree(_) => Ok(bytes.to_vec()),
    }
}

fn write(typed: &Typed, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let dynamic =
        DynamicMessage::decode(typed.message.clone(), bytes).map_err(|e| e.to_string())?;
    if typed.any {
        guard::check_anys(&dynamic)?;
    }
    let mut out = guard::Bounded {
        bytes: Vec::with_capacity(bytes.len() * 2 + 64),
    };
    dynamic
        .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &WRITE)
        .map_err(|e| e.to_string())?;
    Ok(out.bytes)
}
