//! NATS and JetStream by the text protocol.

use std::io::Write as _;

use bytes::Bytes;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::Failure;

/// One connection with an inbox of its own.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    inbox: String,
    asked: u64,
}

struct Message {
    reply: Option<String>,
    payload: Bytes,
}

/// Messages asked for at a time.
const PULL: usize = 256;

/// A pull consumer that asks for more in time.
pub(super) struct Consumer {
    client: Client,
    subject: String,
    owed: usize,
}

impl Client {
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let inbox = format!("_INBOX.{}", stream.local_addr()?.port());
        let mut client = Self {
            stream: BufReader::new(stream),
            out: Vec::new(),
            inbox,
            asked: 0,
        };
        let mut info = String::new();
        client.stream.read_line(&mut info).await?;
        let hello = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
        });
        write!(
            client.out,
            "CONNECT {hello}\r\nSUB {}.* 1\r\n",
            client.inbox
        )?;
        client.flush().await?;
        Ok(client)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.stream.get_mut().write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    fn add(&mut self, subject: &str, answer: bool, payload: &[u8]) -> Result<(), Failure> {
        write!(self.out, "PUB {subject} ")?;
        if answer {
            self.asked += 1;
            write!(self.out, "{}.{} ", self.inbox, self.asked)?;
        }
        write!(self.out, "{}\r\n", payload.len())?;
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    async fn receive(&mut self) -> Result<Message, Failure> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("NATS closed the connection".into());
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    self.flush().await?;
                }
                ["-ERR", ..] => return Err(line.into()),
                ["MSG", _, _, rest @ .., size] => {
                    return self.body(rest.first(), 0, size.parse()?).await;
                }
                ["HMSG", _, _, rest @ .., header, size] => {
                    let (header, size) = (header.parse()?, size.parse()?);
                    return self.body(rest.first(), header, size).await;
                }
                _ => {}
            }
        }
    }

    async fn body(
        &mut self,
        reply: Option<&&str>,
        header: usize,
        size: usize,
    ) -> Result<Message, Failure> {
        let reply = reply.map(|r| (*r).to_owned());
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).await?;
        bytes.truncate(size);
        if header > 0 && bytes.starts_with(b"NATS/1.0 ") {
            let text = String::from_utf8_lossy(&bytes);
            return Err(text.lines().next().unwrap_or_default().to_owned().into());
        }
        let payload = Bytes::from(bytes).split_off(header);
        Ok(Message { reply, payload })
    }

    async fn ask(&mut self, subject: &str, payload: &[u8]) -> Result<Bytes, Failure> {
        self.add(subject, true, payload)?;
        self.flush().await?;
        let answer = self.receive().await?.payload;
        if answer.starts_with(b"{") {
            let value: serde_json::Value = serde_json::from_slice(&answer)?;
            if let Some(error) = value.get("error") {
                return Err(error.to_string().into());
            }
        }
        Ok(answer)
    }

    pub(super) async fn prepare(&mut self, bucket: &str) -> Result<(), Failure> {
        let bucket_stream = format!("KV_{bucket}");
        let values = json!({
            "name": bucket_stream, "subjects": [format!("$KV.{bucket}.>")],
            "max_msgs_per_subject": 1, "allow_direct": true, "allow_rollup_hdrs": true,
            "discard": "new", "storage": "file", "num_replicas": 1,
        });
        let stream = json!({
            "name": bucket, "subjects": [format!("{bucket}.>")], "storage": "file",
            "num_replicas": 1,
        });
        for (name, config) in [(bucket_stream.as_str(), values), (bucket, stream)] {
            let subject = format!("$JS.API.STREAM.CREATE.{name}");
            self.ask(&subject, config.to_string().as_bytes()).await?;
        }
        Ok(())
    }

    pub(super) async fn publish(&mut self, subject: &str, payload: &[u8]) -> Result<(), Failure> {
        self.ask(subject, payload).await.map(drop)
    }

    pub(super) async fn publish_all(
        &mut self,
        subjects: impl Iterator<Item = &str>,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let mut count = 0;
        for subject in subjects {
            self.add(subject, true, payload)?;
            count += 1;
        }
        self.flush().await?;
        for _ in 0..count {
            self.receive().await?;
        }
        Ok(())
    }

    pub(super) async fn get(&mut self, bucket: &str, key: &str) -> Result<bool, Failure> {
        let subject = format!("$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}");
        Ok(!self.ask(&subject, b"").await?.is_empty())
    }

    pub(super) async fn consume(mut self, stream: &str, topic: &str) -> Result<Consumer, Failure> {
        let config = json!({
            "stream_name": stream,
            "config": {
                "durable_name": topic, "ack_policy": "explicit", "deliver_policy": "new",
                "filter_subject": format!("{stream}.{topic}"), "max_ack_pending": 4096,
            },
        });
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{topic}");
        self.ask(&subject, config.to_string().as_bytes()).await?;
        Ok(Consumer {
            client: self,
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{topic}"),
            owed: 0,
        })
    }
}

impl Consumer {
    pub(super) async fn next(&mut self) -> Result<Vec<Bytes>, Failure> {
        if self.owed < PULL / 2 {
            let pull = json!({ "batch": PULL }).to_string();
            self.client.add(&self.subject, true, pull.as_bytes())?;
            self.client.flush().await?;
            self.owed += PULL;
        }
        loop {
            // What cannot be acknowledged is JetStream's own talk.
            let message = self.client.receive().await?;
            if let Some(reply) = message.reply
                && reply.starts_with("$JS.ACK")
            {
                self.owed -= 1;
                self.client.add(&reply, false, b"+ACK")?;
                self.client.flush().await?;
                return Ok(vec![message.payload]);
            }
        }
    }
}
