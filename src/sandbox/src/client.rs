//! The node's side of the socket: many requests in flight over one stream.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use micro_core::{InstanceId, Namespace, ServiceName, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};

use crate::{
    credentials::Credentials,
    error::Error,
    spec::{Event, Running, Source, Spec, Toolchain},
    sys,
    wire::{
        Answer, Call, Decoder, FDS_PER_MESSAGE, Greeting, MAX_MESSAGE, Message, NODE_FD, Request,
    },
};

/// What the supervisor hands to a node that starts.
#[derive(Debug)]
pub struct Hello {
    /// The server's settings; port 0 has become the port that was chosen.
    pub settings: Settings,
    /// Listening, non-blocking sockets by door: `gateway`, `proxy`, `mesh`, `broker`, `registry` with
    /// one socket per core each (the kernel spreads connections over them, so accept on *every* one),
    /// and `admin` with a single one.
    pub listeners: BTreeMap<String, Vec<OwnedFd>>,
    /// Fences this machine lacks, each a sentence with its remedy.
    pub missing: Vec<String>,
    /// What systemd keeps for the server.
    pub credentials: Credentials,
}

/// A handle on the supervisor, cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    next: AtomicU64,
}

/// Who waits for which answer; `None` once the supervisor is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Answer, Error>>>>>>;

impl Supervisor {
    /// Takes the socket the supervisor left at descriptor 3. Works once per process.
    ///
    /// # Errors
    /// `Precondition` when this process was not started by a supervisor.
    pub async fn connect() -> Result<(Self, Hello, mpsc::UnboundedReceiver<Event>), Error> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(Error::NoSupervisor);
        }
        let stream = StdStream::from(sys::take_inherited(NODE_FD).ok_or(Error::NoSupervisor)?);
        let (stream, hello) = tokio::task::spawn_blocking(move || greet(stream))
            .await
            .map_err(|_| Error::NoSupervisor)??;
        stream.set_nonblocking(true).map_err(Error::Greeting)?;
        let stream = UnixStream::from_std(stream).map_err(Error::Greeting)?;
        let (supervisor, events) = Self::over(stream);
        Ok((supervisor, hello, events))
    }

    fn over(stream: UnixStream) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (reader, writer) = stream.into_split();
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (events, incoming) = mpsc::unbounded_channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(write_frames(writer, outgoing));
        tokio::spawn(read_frames(reader, Arc::clone(&waiting), events));
        let shared = Shared {
            frames,
            waiting,
            next: AtomicU64::new(1),
        };
        (
            Self {
                shared: Arc::new(shared),
            },
            incoming,
        )
    }

    async fn call(&self, call: Call) -> Result<Answer, Error> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = crate::wire::encode(&Request { id, call })?;
        let (answer, answered) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, answer),
            None => return Err(Error::Gone),
        };
        self.shared.frames.send(frame).map_err(|_| Error::Gone)?;
        answered.await.map_err(|_| Error::Gone)?
    }

    async fn done(&self, call: Call) -> Result<(), Error> {
        match self.call(call).await? {
            Answer::Done => Ok(()),
            _ => Err(Error::Mixed),
        }
    }

    /// Starts an instance. It runs when this returns; whether it serves is for the caller to find out.
    ///
    /// # Errors
    /// `Invalid` for a spec that must not be asked for, `Conflict` for an id in use, `Precondition`
    /// when fences are required and missing or when a step of the launch failed.
    pub async fn launch(&self, spec: Spec) -> Result<Running, Error> {
        match self.call(Call::Launch(Box::new(spec))).await? {
            Answer::Running(running) => Ok(*running),
            _ => Err(Error::Mixed),
        }
    }

    /// Ends an instance: SIGTERM, and SIGKILL after `grace`. Returns when nothing of it is left;
    /// at once when it has ended already. Its exit is kept until [`Self::forget`].
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stop(&self, id: &InstanceId, grace: Duration) -> Result<(), Error> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let id = id.clone();
        self.done(Call::Stop { id, grace_ms }).await
    }

    /// All instances that run or have an exit that was not forgotten.
    ///
    /// # Errors
    /// `Unavailable` when the supervisor is gone.
    pub async fn list(&self) -> Result<Vec<Running>, Error> {
        match self.call(Call::List).await? {
            Answer::List(list) => Ok(list),
            _ => Err(Error::Mixed),
        }
    }

    /// Removes what is left of an ended instance: its directory with the exit record.
    ///
    /// # Errors
    /// `NotFound`; `Precondition` while it runs.
    pub async fn forget(&self, id: &InstanceId) -> Result<(), Error> {
        self.done(Call::Forget(id.clone())).await
    }

    /// Removes a scratch or cache tree, whose files the node may not touch itself. For data see
    /// [`Self::remove_data`]. It is no error when there is none.
    ///
    /// # Errors
    /// `Invalid` for another source, `Precondition` while an instance uses it.
    pub async fn remove_tree(&self, source: Source, namespace: &Namespace) -> Result<(), Error> {
        let namespace = namespace.clone();
        self.done(Call::RemoveTree { source, namespace }).await
    }

    /// Removes the data directory of a service for good.
    ///
    /// # Errors
    /// `Precondition` while an instance uses it.
    pub async fn remove_data(
        &self,
        namespace: &Namespace,
        service: &ServiceName,
    ) -> Result<(), Error> {
        let (namespace, service) = (namespace.clone(), service.clone());
        self.done(Call::RemoveData { namespace, service }).await
    }

    /// Gives the scratch tree of an ended build to the node, which may then read, move and remove it.
    /// Set-uid bits are cleared. Returns where it is.
    ///
    /// # Errors
    /// `Invalid` for another source, `NotFound`, `Precondition` while an instance uses it.
    pub async fn take_tree(&self, source: Source, namespace: &Namespace) -> Result<PathBuf, Error> {
        let namespace = namespace.clone();
        match self.call(Call::TakeTree { source, namespace }).await? {
            Answer::Path(path) => Ok(path),
            _ => Err(Error::Mixed),
        }
    }

    /// The toolchains of this machine. The first call looks for them, which can take seconds.
    ///
    /// # Errors
    /// `Unavailable` when the supervisor is gone.
    pub async fn toolchains(&self) -> Result<Vec<Toolchain>, Error> {
        match self.call(Call::Toolchains).await? {
            Answer::Toolchains(list) => Ok(list),
            _ => Err(Error::Mixed),
        }
    }

    /// Says that the doors accept. The supervisor tells the service manager.
    ///
    /// # Errors
    /// `Unavailable` when the supervisor is gone.
    pub async fn ready(&self) -> Result<(), Error> {
        self.done(Call::Ready).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the greeting and the listeners. Blocking: nothing else can happen before it.
fn greet(stream: StdStream) -> Result<(StdStream, Hello), Error> {
    stream.set_nonblocking(false).map_err(Error::Greeting)?;
    let mut head = [0; 4];
    (&stream).read_exact(&mut head).map_err(Error::Greeting)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > MAX_MESSAGE {
        return Err(Error::FrameTooBig);
    }
    let mut body = vec![0; length];
    (&stream).read_exact(&mut body).map_err(Error::Greeting)?;
    let greeting: Greeting = serde_json::from_slice(&body).map_err(Error::Decode)?;
    let total: usize = greeting.listeners.iter().map(|(_, count)| count).sum();
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(total);
    while fds.len() < total {
        let more = sys::receive_fds(stream.as_fd(), FDS_PER_MESSAGE)
            .map_err(|e| Error::Greeting(e.into()))?;
        if more.is_empty() {
            return Err(Error::Gone);
        }
        fds.extend(more);
    }
    let mut fds = fds.into_iter();
    let listeners = greeting
        .listeners
        .into_iter()
        .map(|(door, count)| (door, fds.by_ref().take(count).collect()))
        .collect();
    let hello = Hello {
        settings: greeting.settings,
        listeners,
        missing: greeting.missing,
        credentials: greeting.credentials,
    };
    Ok((stream, hello))
}

async fn write_frames(mut writer: OwnedWriteHalf, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if writer.write_all(&frame).await.is_err() {
            return; // The reader sees the end too, and tells everyone who waits.
        }
    }
}

async fn read_frames(
    mut reader: OwnedReadHalf,
    waiting: Waiting,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut decoder = Decoder::new(MAX_MESSAGE);
    let mut chunk = vec![0; 64 << 10];
    'stream: loop {
        let read = match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        decoder.push(chunk.get(..read).unwrap_or_default());
        loop {
            match decoder.next::<Message>() {
                Ok(Some(Message::Event(event))) => drop(events.send(event)),
                Ok(Some(Message::Answer { id, outcome })) => {
                    let waiter = lock(&waiting).as_mut().and_then(|w| w.remove(&id));
                    if let Some(waiter) = waiter {
                        // The caller may have stopped waiting.
                        drop(waiter.send(outcome.map_err(crate::wire::Refusal::into_error)));
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "The supervisor sent something this node cannot read.");
                    break 'stream;
                }
            }
        }
    }
    // Dropping the senders wakes everyone who waits.
    lock(&waiting).take();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Supervisor, mpsc::UnboundedReceiver<Event>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (supervisor, events) = Supervisor::over(ours);
        (supervisor, events, theirs)
    }

    async fn request(stream: &mut UnixStream) -> Request {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut body).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn answers_find_their_request_in_any_order() {
        let (supervisor, mut events, mut far) = pair();
        let list = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { supervisor.list().await }
        });
        let first = request(&mut far).await;
        let ready = tokio::spawn(async move { supervisor.ready().await });
        let second = request(&mut far).await;
        let id = InstanceId::parse("a").unwrap();
        let exit = crate::Exit::Code(3);
        for message in [
            Message::Answer {
                id: second.id,
                outcome: Ok(Answer::Done),
            },
            Message::Event(Event::Exited { id, exit }),
            Message::Answer {
                id: first.id,
                outcome: Ok(Answer::List(Vec::new())),
            },
        ] {
            let frame = crate::wire::encode(&message).unwrap();
            far.write_all(&frame).await.unwrap();
        }
        assert!(ready.await.unwrap().is_ok());
        assert_eq!(list.await.unwrap().unwrap(), []);
        assert!(matches!(events.recv().await, Some(Event::Exited { .. })));
    }

    #[tokio::test]
    async fn everyone_who_waits_hears_that_the_supervisor_is_gone() {
        let (supervisor, _events, mut far) = pair();
        let waits = tokio::spawn({
            let supervisor = supervisor.clone();
            async move { supervisor.list().await }
        });
        request(&mut far).await;
        drop(far);
        assert!(matches!(waits.await.unwrap(), Err(Error::Gone)));
        assert!(matches!(supervisor.list().await, Err(Error::Gone)));
    }
}
