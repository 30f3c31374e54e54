//! redis by RESP2.

use std::io::Write as _;

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::Failure;

/// One connection.
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    /// Its name in a group.
    name: String,
}

enum Reply {
    Line,
    Bulk(Bytes),
    Nil,
    Array(Vec<Reply>),
}

impl Client {
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = stream.local_addr()?.to_string();
        Ok(Self {
            stream: BufReader::new(stream),
            out: Vec::new(),
            name,
        })
    }

    fn add(&mut self, words: &[&[u8]]) -> Result<(), Failure> {
        write!(self.out, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.out, "${}\r\n", word.len())?;
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        self.stream.get_mut().write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply, Failure> {
        self.add(words)?;
        self.flush().await?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, Failure> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err("redis closed the connection".into());
        }
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("no answer")?;
        match kind {
            "-" => Err(rest.to_owned().into()),
            "$" => {
                let Ok(size) = rest.parse::<usize>() else {
                    return Ok(Reply::Nil);
                };
                let mut bytes = vec![0; size + 2];
                self.stream.read_exact(&mut bytes).await?;
                bytes.truncate(size);
                Ok(Reply::Bulk(bytes.into()))
            }
            "*" => {
                let Ok(count) = rest.parse::<usize>() else {
                    return Ok(Reply::Nil);
                };
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(Box::pin(self.reply()).await?);
                }
                Ok(Reply::Array(items))
            }
            _ => Ok(Reply::Line),
        }
    }

    /// Sends what was added and takes `count` replies.
    async fn collect(&mut self, count: usize) -> Result<(), Failure> {
        self.flush().await?;
        for _ in 0..count {
            self.reply().await?;
        }
        Ok(())
    }

    pub(super) async fn set(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
        self.add(&[b"SET", key.as_bytes(), value])?;
        self.collect(1).await
    }

    pub(super) async fn set_all(&mut self, keys: &[String], value: &[u8]) -> Result<(), Failure> {
        for key in keys {
            self.add(&[b"SET", key.as_bytes(), value])?;
        }
        self.collect(keys.len()).await
    }

    pub(super) async fn get(&mut self, key: &str) -> Result<bool, Failure> {
        let reply = self.ask(&[b"GET", key.as_bytes()]).await?;
        Ok(matches!(reply, Reply::Bulk(_)))
    }

    pub(super) async fn add_all(
        &mut self,
        topic: &str,
        payload: &[u8],
        count: usize,
    ) -> Result<(), Failure> {
        for _ in 0..count {
            self.add(&[b"XADD", topic.as_bytes(), b"*", b"p", payload])?;
        }
        self.collect(count).await
    }

    pub(super) async fn create_group(&mut self, topic: &str, group: &str) -> Result<(), Failure> {
        let (topic, group) = (topic.as_bytes(), group.as_bytes());
        let words: [&[u8]; 6] = [b"XGROUP", b"CREATE", topic, group, b"$", b"MKSTREAM"];
        match self.ask(&words).await {
            Err(error) if error.to_string().contains("BUSYGROUP") => Ok(()),
            other => other.map(drop),
        }
    }

    pub(super) async fn read_group(
        &mut self,
        topic: &str,
        group: &str,
    ) -> Result<Vec<Bytes>, Failure> {
        let (name, topic, group) = (self.name.clone(), topic.as_bytes(), group.as_bytes());
        let words: [&[u8]; 11] = [
            b"XREADGROUP",
            b"GROUP",
            group,
            name.as_bytes(),
            b"COUNT",
            b"256",
            b"BLOCK",
            b"0",
            b"STREAMS",
            topic,
            b">",
        ];
        let reply = self.ask(&words).await?;
        let mut found = Vec::new();
        entries(&reply, &mut found);
        let mut ack: Vec<&[u8]> = vec![b"XACK", topic, group];
        ack.extend(found.iter().map(|(id, _)| &id[..]));
        if !found.is_empty() {
            self.ask(&ack).await?;
        }
        Ok(found.into_iter().map(|(_, payload)| payload).collect())
    }
}

/// Each `[id, [name, value]]` anywhere in an answer of `XREADGROUP`.
fn entries(reply: &Reply, found: &mut Vec<(Bytes, Bytes)>) {
    let Reply::Array(items) = reply else { return };
    if let [Reply::Bulk(id), Reply::Array(fields)] = items.as_slice()
        && let [Reply::Bulk(_), Reply::Bulk(payload)] = fields.as_slice()
    {
        found.push((id.clone(), payload.clone()));
        return;
    }
    for item in items {
        entries(item, found);
    }
}
