//! gRPC's message framing: one byte of flags, four bytes of length, the message.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body::{Body, Frame};

use crate::error::Error;

/// Bytes before each message.
pub(crate) const HEADER: usize = 5;

/// `message` with its header, uncompressed.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEADER + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// Cuts a stream of chunks into messages.
#[derive(Debug)]
pub(crate) struct Messages {
    /// The usual case: a chunk that holds whole messages is never copied.
    whole: Bytes,
    /// Chunks that had to be joined.
    joined: BytesMut,
    limit: usize,
}

/// One message as it travelled.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) compressed: bool,
    pub(crate) payload: Bytes,
}

impl Messages {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            whole: Bytes::new(),
            joined: BytesMut::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, chunk: Bytes) {
        if self.joined.is_empty() && self.whole.is_empty() {
            self.whole = chunk;
            return;
        }
        if !self.whole.is_empty() {
            let first = std::mem::take(&mut self.whole);
            self.joined.extend_from_slice(&first);
        }
        self.joined.extend_from_slice(&chunk);
    }

    /// The next complete message, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Error> {
        let available = self.whole.len().max(self.joined.len());
        let mut head: &[u8] = if self.whole.is_empty() {
            &self.joined
        } else {
            &self.whole
        };
        if head.len() < HEADER {
            return Ok(None);
        }
        let compressed = head.get_u8() != 0;
        let size = head.get_u32() as usize;
        if size > self.limit {
            return Err(Error::TooLarge {
                size,
                limit: self.limit,
            });
        }
        if available < HEADER + size {
            if self.whole.is_empty() {
                self.joined.reserve(HEADER + size - available);
            }
            return Ok(None);
        }
        let payload = if self.whole.is_empty() {
            self.joined.advance(HEADER);
            self.joined.split_to(size).freeze()
        } else {
            self.whole.advance(HEADER);
            self.whole.split_to(size)
        };
        Ok(Some(Message {
            compressed,
            payload,
        }))
    }

    /// Whether a message has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        !(self.whole.is_empty() && self.joined.is_empty())
    }
}

/// A body that ends after its first message, whether or not the peer ends it. Micro's Go clients
/// never half-close the streams they open (contract §3.6), and a server that waits for the end of a
/// request that has one message would wait for ever.
#[derive(Debug)]
pub(crate) struct FirstMessage<B> {
    inner: Option<B>,
    /// The header so far, big-endian; five bytes fit.
    header: u64,
    header_seen: usize,
    payload_seen: usize,
}

impl<B> FirstMessage<B> {
    pub(crate) const fn new(inner: B) -> Self {
        Self {
            inner: Some(inner),
            header: 0,
            header_seen: 0,
            payload_seen: 0,
        }
    }

    /// How much of `chunk` belongs to the message, and whether that completes it.
    fn take(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut rest = chunk;
        while self.header_seen < HEADER && !rest.is_empty() {
            self.header = (self.header << 8) | u64::from(rest.get_u8());
            self.header_seen += 1;
        }
        if self.header_seen < HEADER {
            return (chunk.len(), false);
        }
        let size = (self.header & 0xffff_ffff) as usize;
        let payload = rest.len().min(size.saturating_sub(self.payload_seen));
        self.payload_seen += payload;
        (
            chunk.len() - rest.len() + payload,
            self.payload_seen == size,
        )
    }
}

impl<B> Body for FirstMessage<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let me = &mut *self;
        let Some(inner) = &mut me.inner else {
            return Poll::Ready(None);
        };
        let frame = match std::task::ready!(Pin::new(inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => {
                me.inner = None;
                return Poll::Ready(other);
            }
        };
        match frame.into_data() {
            Ok(mut chunk) => {
                let (length, complete) = me.take(&chunk);
                chunk.truncate(length);
                if complete {
                    me.inner = None;
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Err(trailers) => {
                me.inner = None;
                Poll::Ready(Some(Ok(trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn split(bytes: &[u8], sizes: &[usize]) -> Vec<Bytes> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut chunks = Vec::new();
        for size in sizes {
            if rest.is_empty() {
                break;
            }
            chunks.push(rest.split_to((*size).clamp(1, rest.len())));
        }
        chunks.push(rest);
        chunks
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            sizes in prop::collection::vec(1usize..20, 0..40),
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m)).collect();
            let mut reader = Messages::new(1024);
            let mut out = Vec::new();
            for chunk in split(&wire, &sizes) {
                reader.push(chunk);
                while let Some(message) = reader.next().unwrap() {
                    out.push(message.payload.to_vec());
                }
            }
            prop_assert_eq!(out, messages);
            prop_assert!(!reader.is_partial());
        }

        #[test]
        fn a_cut_body_holds_exactly_the_first_message(
            first in prop::collection::vec(any::<u8>(), 0..40),
            rest in prop::collection::vec(any::<u8>(), 0..40),
            sizes in prop::collection::vec(1usize..20, 0..20),
        ) {
            let mut wire = frame(&first).to_vec();
            wire.extend_from_slice(&rest);
            // A peer that never ends its stream: the cut must not wait for it.
            let chunks = split(&wire, &sizes).into_iter().filter(|c| !c.is_empty());
            let endless = stream::StreamExt::chain(
                stream::iter(chunks.map(|c| Ok::<_, Infallible>(Frame::data(c))).collect::<Vec<_>>()),
                stream::pending(),
            );
            let body = FirstMessage::new(StreamBody::new(endless));
            let collected = futures_util::future::FutureExt::now_or_never(body.collect())
                .expect("ends by itself").unwrap().to_bytes();
            prop_assert_eq!(collected, frame(&first));
        }
    }

    #[test]
    fn a_message_above_the_limit_is_refused_before_it_arrives() {
        let mut reader = Messages::new(10);
        reader.push(Bytes::from_static(&[0, 0, 0, 0, 11]));
        assert!(matches!(
            reader.next(),
            Err(Error::TooLarge {
                size: 11,
                limit: 10
            })
        ));
    }
}
