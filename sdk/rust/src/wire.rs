//! The few messages of the platform that this library speaks, written by hand so that no protoc and
//! no generated file is needed. `tests/wire.rs` holds them against the platform's own `.proto` files.

// With their paths, because `tests/wire.rs` brings this file in from another folder.
#[path = "wire/broker.rs"]
pub(crate) mod broker;
#[path = "wire/config.rs"]
pub(crate) mod config;
#[path = "wire/events.rs"]
pub(crate) mod events;
#[path = "wire/store.rs"]
pub(crate) mod store;

/// `auth.proto`
pub(crate) mod auth {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Options {
        #[prost(string, tag = "1")]
        pub(crate) namespace: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TokenRequest {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
        #[prost(string, tag = "2")]
        pub(crate) secret: String,
        #[prost(string, tag = "3")]
        pub(crate) refresh_token: String,
        #[prost(int64, tag = "4")]
        pub(crate) token_expiry: i64,
        #[prost(message, optional, tag = "5")]
        pub(crate) options: Option<Options>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct TokenResponse {
        #[prost(message, optional, tag = "1")]
        pub(crate) token: Option<Token>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Token {
        #[prost(string, tag = "1")]
        pub(crate) access_token: String,
        #[prost(string, tag = "2")]
        pub(crate) refresh_token: String,
        #[prost(int64, tag = "3")]
        pub(crate) created: i64,
        #[prost(int64, tag = "4")]
        pub(crate) expiry: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct InspectRequest {
        #[prost(string, tag = "1")]
        pub(crate) token: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) options: Option<Options>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct InspectResponse {
        #[prost(message, optional, tag = "1")]
        pub(crate) account: Option<Account>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Account {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
        #[prost(string, tag = "2")]
        pub(crate) r#type: String,
        #[prost(map = "string, string", tag = "4")]
        pub(crate) metadata: HashMap<String, String>,
        #[prost(string, repeated, tag = "5")]
        pub(crate) scopes: Vec<String>,
        #[prost(string, tag = "6")]
        pub(crate) issuer: String,
        #[prost(string, tag = "8")]
        pub(crate) name: String,
    }
}

/// `registry.proto`
pub(crate) mod registry {
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Service {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) version: String,
        #[prost(map = "string, string", tag = "3")]
        pub(crate) metadata: HashMap<String, String>,
        #[prost(message, repeated, tag = "4")]
        pub(crate) endpoints: Vec<Endpoint>,
        #[prost(message, repeated, tag = "5")]
        pub(crate) nodes: Vec<Node>,
        #[prost(message, optional, tag = "6")]
        pub(crate) options: Option<Options>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Node {
        #[prost(string, tag = "1")]
        pub(crate) id: String,
        #[prost(string, tag = "2")]
        pub(crate) address: String,
        #[prost(int64, tag = "3")]
        pub(crate) port: i64,
        #[prost(map = "string, string", tag = "4")]
        pub(crate) metadata: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Endpoint {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) request: Option<Value>,
        #[prost(message, optional, tag = "3")]
        pub(crate) response: Option<Value>,
        #[prost(map = "string, string", tag = "4")]
        pub(crate) metadata: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Value {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) r#type: String,
        #[prost(message, repeated, tag = "3")]
        pub(crate) values: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Options {
        #[prost(int64, tag = "1")]
        pub(crate) ttl: i64,
        #[prost(string, tag = "2")]
        pub(crate) domain: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct EmptyResponse {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct GetRequest {
        #[prost(string, tag = "1")]
        pub(crate) service: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) options: Option<Options>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ListRequest {
        #[prost(message, optional, tag = "1")]
        pub(crate) options: Option<Options>,
    }

    /// The answer to `GetService` and to `ListServices`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Services {
        #[prost(message, repeated, tag = "1")]
        pub(crate) services: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct WatchRequest {
        #[prost(string, tag = "1")]
        pub(crate) service: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) options: Option<Options>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Event {
        #[prost(string, tag = "1")]
        pub(crate) action: String,
        #[prost(message, optional, tag = "2")]
        pub(crate) service: Option<Service>,
        #[prost(int64, tag = "3")]
        pub(crate) timestamp: i64,
    }
}
