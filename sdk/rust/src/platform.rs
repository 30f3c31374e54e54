//! The one connection to the platform: made at the first use, made again whenever it breaks.

use std::{sync::OnceLock, time::Duration};

use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::error::Chain;

/// Where the platform is, and the connection to it.
#[derive(Debug)]
pub(crate) struct Platform {
    address: String,
    channel: OnceLock<Channel>,
}

impl Platform {
    /// The platform at `address` (`host:port`). Nothing is dialled yet.
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            channel: OnceLock::new(),
        }
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The connection. It belongs to the runtime that asks first, hence not made in `new`.
    pub(crate) fn channel(&self) -> Result<Channel, Status> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel.clone());
        }
        if self.address.starts_with("https:") {
            return Err(Status::failed_precondition(format!(
                "cannot use {}: only connections without TLS are supported; set MICRO_PROXY to host:port",
                self.address
            )));
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(|_| {
            Status::failed_precondition(format!(
                "cannot use {:?} as the platform's address; set MICRO_PROXY to host:port",
                self.address
            ))
        })?;
        let endpoint = endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        Ok(self.channel.get_or_init(|| endpoint.connect_lazy()).clone())
    }

    /// What a caller gets when the platform cannot be reached.
    pub(crate) fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> Status {
        Status::unavailable(format!(
            "cannot reach the platform at {}: {}",
            self.address,
            Chain(error)
        ))
    }
}

/// What a status of the platform says to a person: the `detail` of Micro's error object, or its text.
pub(crate) fn detail(status: &Status) -> String {
    let text = status.message();
    object(text)
        .and_then(|object| object.detail)
        .unwrap_or_else(|| text.to_owned())
}

/// The HTTP status in Micro's error object.
pub(crate) fn code(status: &Status) -> Option<u16> {
    object(status.message())?.code
}

/// Micro's error object, as far as it matters here. Micro 3.0 writes its members with capitals.
#[derive(serde::Deserialize)]
struct ErrorObject {
    #[serde(default, alias = "Code")]
    code: Option<u16>,
    #[serde(default, alias = "Detail")]
    detail: Option<String>,
}

fn object(text: &str) -> Option<ErrorObject> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_of_an_error_object_is_read() {
        let status = Status::internal(
            r#"{"id":"auth","code":400,"detail":"say \"please\"\nhint: \u0041\\","status":"Bad Request"}"#,
        );
        assert_eq!(detail(&status), "say \"please\"\nhint: A\\");
        for text in ["plain words", "", r#"{"detail":"cut"#, r#"{"detail":7}"#] {
            assert_eq!(detail(&Status::internal(text)), text);
        }
    }

    #[tokio::test]
    async fn a_platform_that_needs_tls_is_refused_with_words() {
        let status = Platform::new("https://example.org").channel().unwrap_err();
        assert!(status.message().contains("without TLS"), "{status}");
        let status = Platform::new("not an address").channel().unwrap_err();
        assert!(status.message().contains("MICRO_PROXY"), "{status}");
    }
}
