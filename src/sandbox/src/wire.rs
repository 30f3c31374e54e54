//! The socket between supervisor and node: a greeting with the listeners, then JSON frames behind a
//! 32-bit big-endian length. The node numbers its requests; answers come in any order.

use std::path::PathBuf;

use micro_core::{Fault as _, InstanceId, Kind, Namespace, ServiceName, Settings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    credentials::Credentials,
    error::Error,
    spec::{Event, Running, Source, Spec, Toolchain},
};

/// The descriptor at which the node finds its end of the socket.
pub(crate) const NODE_FD: i32 = 3;
/// Most descriptors in one message; the kernel's bound is 253.
pub(crate) const FDS_PER_MESSAGE: usize = 64;
/// Largest frame the supervisor reads.
pub(crate) const MAX_REQUEST: usize = 1 << 20;
/// Largest frame the node reads: a list of many instances.
pub(crate) const MAX_MESSAGE: usize = 256 << 20;

/// First frame to the node. After it come the listeners' descriptors in the order of `listeners`, at
/// most [`FDS_PER_MESSAGE`] with each single byte.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) settings: Settings,
    pub(crate) missing: Vec<String>,
    pub(crate) listeners: Vec<(String, usize)>,
    #[serde(default)]
    pub(crate) credentials: Credentials,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    Launch(Box<Spec>),
    Stop {
        id: InstanceId,
        grace_ms: u64,
    },
    List,
    Forget(InstanceId),
    RemoveTree {
        source: Source,
        namespace: Namespace,
    },
    RemoveData {
        namespace: Namespace,
        service: ServiceName,
    },
    TakeTree {
        source: Source,
        namespace: Namespace,
    },
    Toolchains,
    Ready,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    Answer {
        id: u64,
        outcome: Result<Answer, Refusal>,
    },
    Event(Event),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Done,
    Running(Box<Running>),
    List(Vec<Running>),
    Toolchains(Vec<Toolchain>),
    Path(PathBuf),
}

/// An error on its way to the node: what [`Fault`] knows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Refusal {
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            code: error.kind().http(),
            message: error.chain(),
            hint: error.hint(),
        }
    }

    pub(crate) fn into_error(self) -> Error {
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.http() == self.code)
            .unwrap_or(Kind::Internal);
        Error::Refused {
            kind,
            message: self.message,
            hint: self.hint,
        }
    }
}

/// A value as one frame.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value).map_err(Error::Encode)?;
    let length = u32::try_from(frame.len().saturating_sub(4)).map_err(|_| Error::FrameTooBig)?;
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = length.to_be_bytes();
    }
    Ok(frame)
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    limit: usize,
}

impl Decoder {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(head) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.limit {
            return Err(Error::FrameTooBig);
        }
        let Some(body) = self.buffer.get(4..4 + length) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(body).map_err(Error::Decode);
        self.buffer.drain(..4 + length);
        value.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let frame = encode(&Request {
            id: 7,
            call: Call::List,
        })
        .unwrap();
        let twice = [frame.clone(), frame].concat();
        for cut in 0..twice.len() {
            let mut decoder = Decoder::new(MAX_REQUEST);
            let mut seen = 0;
            for part in [&twice[..cut], &twice[cut..]] {
                decoder.push(part);
                while let Some(request) = decoder.next::<Request>().unwrap() {
                    assert_eq!(request.id, 7);
                    seen += 1;
                }
            }
            assert_eq!(seen, 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_it_is_stored() {
        let mut decoder = Decoder::new(16);
        decoder.push(&[0, 0, 0, 17]);
        assert!(matches!(decoder.next::<Request>(), Err(Error::FrameTooBig)));
    }

    #[test]
    fn an_error_keeps_its_kind_on_the_way() {
        let error = Error::UnknownInstance(InstanceId::parse("a").unwrap());
        let back = Refusal::of(&error).into_error();
        assert_eq!(back.kind(), Kind::NotFound);
        assert_eq!(back.to_string(), error.to_string());
    }
}
