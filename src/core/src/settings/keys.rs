//! Every setting there is, once.

/// What a key's text on the command line or in the environment becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A text; sizes and times included.
    Text,
    /// A whole number.
    Integer,
    /// A comma-separated list of texts.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Section and name, such as `server.gateway_address`.
    pub path: &'static str,
    /// How its text is read.
    pub shape: Shape,
    /// The compiled default, in the text form.
    pub default: &'static str,
    /// One sentence for help and reference.
    pub doc: &'static str,
}

impl Key {
    /// The flag, such as `gateway-address` or `build-timeout`.
    pub fn flag(&self) -> String {
        self.path
            .trim_start_matches("server.")
            .replace(['.', '_'], "-")
    }

    /// The environment variable, such as `MICRO_SERVER_GATEWAY_ADDRESS`.
    pub fn env(&self) -> String {
        format!(
            "MICRO_SERVER_{}",
            self.flag().replace('-', "_").to_uppercase()
        )
    }
}

const fn key(path: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        shape,
        default,
        doc,
    }
}

/// Every setting there is.
pub const KEYS: &[Key] = &[
    key(
        "server.state_dir",
        Shape::Text,
        "",
        "Where everything is kept; /var/lib/micro for root, else ~/.micro/server.",
    ),
    key(
        "server.gateway_address",
        Shape::Text,
        "127.0.0.1:8080",
        "HTTP gateway: JSON to services, and plain HTTP services.",
    ),
    key(
        "server.proxy_address",
        Shape::Text,
        "127.0.0.1:8081",
        "Identity proxy: gRPC for the CLI, SDKs and other machines.",
    ),
    key(
        "server.mesh_address",
        Shape::Text,
        "127.0.0.1:8443",
        "gRPC between services (h2c). Keep it on loopback.",
    ),
    key(
        "server.broker_address",
        Shape::Text,
        "127.0.0.1:8003",
        "The mesh once more, where Micro's Go library looks for the broker.",
    ),
    key(
        "server.registry_address",
        Shape::Text,
        "127.0.0.1:8000",
        "The mesh once more, where Micro's Go library looks for the registry.",
    ),
    key(
        "server.admin_address",
        Shape::Text,
        "127.0.0.1:8089",
        "Liveness, readiness and metrics for the operator.",
    ),
    key(
        "server.domain",
        Shape::Text,
        "localhost",
        "HTTP services answer at <name>.<namespace>.<domain>.",
    ),
    key(
        "server.isolation",
        Shape::Text,
        "best-effort",
        "required: refuse to run a service without all its fences; best-effort: run it and say what is missing.",
    ),
    key(
        "server.default_account",
        Shape::Text,
        "auto",
        "auto: admin/micro exists while every door is on loopback; never: a one-time token makes the first account.",
    ),
    key(
        "server.user",
        Shape::Text,
        "micro",
        "The user the node process runs as when the server is started by root.",
    ),
    key(
        "build.env",
        Shape::List,
        "",
        "Environment variables of the server that build jobs may see: proxies, mirrors, tokens of package registries.",
    ),
    key(
        "build.files",
        Shape::List,
        "",
        "Files that build jobs may read at the same path: pip.conf, .npmrc, CA bundles, cargo's config.toml.",
    ),
    key(
        "build.paths",
        Shape::List,
        "",
        "More directories that build jobs and services may read, such as toolchains outside the usual places.",
    ),
    key(
        "build.timeout",
        Shape::Text,
        "20m",
        "How long one build may take.",
    ),
    key(
        "build.memory",
        Shape::Text,
        "3GiB",
        "Memory of one build job.",
    ),
    key(
        "build.processes",
        Shape::Integer,
        "1024",
        "Processes and threads of one build job.",
    ),
    key(
        "limits.memory",
        Shape::Text,
        "512MiB",
        "Memory of one instance, unless its micro.toml says less.",
    ),
    key(
        "limits.processes",
        Shape::Integer,
        "512",
        "Processes and threads of one instance.",
    ),
    key(
        "limits.cpu_percent",
        Shape::Integer,
        "0",
        "CPU of one instance in percent of one core; 0 for no limit.",
    ),
    key(
        "limits.upload",
        Shape::Text,
        "512MiB",
        "Largest source tree or binary that may be uploaded.",
    ),
    key(
        "limits.upload_files",
        Shape::Integer,
        "50000",
        "Most files one upload may hold.",
    ),
    key(
        "limits.body",
        Shape::Text,
        "32MiB",
        "Largest request body that the gateway turns into a message.",
    ),
    key(
        "limits.state",
        Shape::Text,
        "0",
        "What a namespace may keep in records, settings, events and blobs together; 0 is whatever fits.",
    ),
    key(
        "limits.start_timeout",
        Shape::Text,
        "30s",
        "How long a new instance may take until it serves.",
    ),
    key(
        "limits.log_file",
        Shape::Text,
        "8MiB",
        "Size at which a service's log rotates; three files are kept.",
    ),
    key(
        "log.level",
        Shape::Text,
        "info",
        "error, warn, info, debug or trace; or a tracing filter.",
    ),
    key("log.format", Shape::Text, "text", "text or json."),
];
