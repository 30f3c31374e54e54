//! The channel to the proxy with the headers that every call carries: the token, the namespace, and
//! for calls with JSON the content type, which tonic's client cannot be told.

use std::{
    sync::Arc,
    task::{self, Poll},
};

use http::HeaderMap;
use tonic::{body::Body, transport::Channel};
use tower::Service;

/// A channel that adds headers.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    channel: Channel,
    headers: Arc<HeaderMap>,
}

impl Door {
    /// Adds `headers` to each request on `channel`, in the place of those of the same name.
    pub(crate) fn new(channel: Channel, headers: Arc<HeaderMap>) -> Self {
        Self { channel, headers }
    }
}

impl Service<http::Request<Body>> for Door {
    type Response = <Channel as Service<http::Request<Body>>>::Response;
    type Error = <Channel as Service<http::Request<Body>>>::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.channel.call(request)
    }
}
