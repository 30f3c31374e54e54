//! Work on durable state, in a closed loop:
//! `state SYSTEM ADDRESS WORK CLIENTS SECONDS KEYS [TOKEN]`, where SYSTEM is `micro`, `redis`, `etcd`
//! or `nats` and WORK one of
//!
//! | work | one operation |
//! |---|---|
//! | `prepare` | none: what must be declared is declared |
//! | `fill` | KEYS puts in batches, then the end |
//! | `put`, `get` | one of KEYS, at random, 256 bytes |
//! | `batch` | 100 puts |
//! | `publish`, `publish-batch` | one event, or 100, over 4 topics |
//! | `deliver` | an event to its consumer, who acknowledges it; the time is until it came |
//! | `watch` | a put until the last of CLIENTS watchers has it |
//!
//! Prints one JSON object: operations per second (each put or event of a batch counts), percentiles
//! of a request in microseconds, errors; the first error of each client goes to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{Buf as _, BufMut as _};
use micro_benches::contender::{Client, Failure, System};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

const VALUE: usize = 256;
const BATCH: usize = 100;
const TOPICS: u64 = 4;
/// A prime, so that a batch meets no key twice.
const STRIDE: u64 = 7919;
/// Clients that fill.
const LANES: usize = 8;
/// Watchers on one connection.
const WATCHERS: usize = 100;
/// What has not come after this time does not come.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Tally {
    nanos: Vec<u32>,
    operations: u64,
    errors: u64,
}

impl Tally {
    fn add(&mut self, taken: Duration, operations: usize) {
        self.nanos
            .push(u32::try_from(taken.as_nanos()).unwrap_or(u32::MAX));
        self.operations += operations as u64;
    }

    fn merge(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
        self.operations += other.operations;
        self.errors += other.errors;
    }

    fn report(mut self, elapsed: Duration) -> serde_json::Value {
        self.nanos.sort_unstable();
        let micros = |percent: usize| {
            let at = self.nanos.len() * percent / 100;
            self.nanos.get(at).map_or(0.0, |n| f64::from(*n) / 1000.0)
        };
        serde_json::json!({
            "operations": self.operations,
            "per_second": self.operations as f64 / elapsed.as_secs_f64(),
            "p50": micros(50),
            "p99": micros(99),
            "errors": self.errors,
        })
    }
}

/// xorshift; each client has its own seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

fn key(number: u64) -> String {
    format!("user-{number:012}-profile")
}

/// A value that carries a number.
fn stamped(number: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE);
    value.put_u64(number);
    value.resize(VALUE, 7);
    value
}

async fn once(
    client: &mut Client,
    work: &str,
    random: &mut Random,
    keys: u64,
) -> Result<usize, Failure> {
    let value = [7; VALUE];
    let topic = format!("topic-{}", random.below(TOPICS));
    match work {
        "put" => client.put(&key(random.below(keys)), &value).await?,
        "get" => client.get(&key(random.below(keys))).await?,
        "publish" => client.publish(&topic, &value).await?,
        "batch" => {
            // Far apart and each once: a transaction may not write a key twice.
            let start = random.below(keys);
            let chosen: Vec<String> = (0..BATCH as u64)
                .map(|i| key((start + i * STRIDE) % keys))
                .collect();
            client.put_batch(&chosen, &value).await?;
            return Ok(BATCH);
        }
        "publish-batch" => {
            client.publish_batch(&topic, &value, BATCH).await?;
            return Ok(BATCH);
        }
        other => return Err(format!("unknown work {other}").into()),
    }
    Ok(1)
}

/// Clients on as few connections as their protocol's libraries would use.
async fn clients(system: &System, count: usize) -> Result<Vec<Client>, Failure> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let connection = system.connect().await?;
        for _ in 0..system.shared().min(count - all.len()) {
            all.push(connection.client().await?);
        }
    }
    Ok(all)
}

async fn fill(system: &System, keys: u64) -> Result<Tally, Failure> {
    let mut tasks = JoinSet::new();
    for (lane, mut client) in clients(system, LANES).await?.into_iter().enumerate() {
        tasks.spawn(async move {
            let mine: Vec<String> = (lane as u64..keys).step_by(LANES).map(key).collect();
            for batch in mine.chunks(BATCH) {
                client.put_batch(batch, &[7; VALUE]).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(Tally {
        operations: keys,
        ..Tally::default()
    })
}

async fn steady(
    system: &System,
    work: &str,
    count: usize,
    span: Duration,
    keys: u64,
) -> Result<(Tally, Duration), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let ready = clients(system, count).await?;
    let begun = Instant::now();
    for (index, mut client) in ready.into_iter().enumerate() {
        let (stop, work) = (Arc::clone(&stop), work.to_owned());
        tasks.spawn(async move {
            let mut tally = Tally::default();
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ ((index as u64 + 1) << 20));
            while !stop.load(Relaxed) {
                let begun = Instant::now();
                match once(&mut client, &work, &mut random, keys).await {
                    Ok(operations) => tally.add(begun.elapsed(), operations),
                    Err(error) => {
                        if tally.errors == 0 {
                            eprintln!("{work}: {error}");
                        }
                        tally.errors += 1;
                    }
                }
            }
            tally
        });
    }
    tokio::time::sleep(span).await;
    stop.store(true, Relaxed);
    let mut all = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        all.merge(tally?);
    }
    Ok((all, begun.elapsed()))
}

/// Publishers with one event on its way each, and one consumer of a group.
async fn deliver(
    system: &System,
    count: usize,
    span: Duration,
) -> Result<(Tally, Duration), Failure> {
    let topic = "deliveries";
    let ready = clients(system, count).await?;
    let mut consumer = system.consume(topic).await?;
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let (came, mut times) = mpsc::unbounded_channel();
    let consuming = tokio::spawn(async move {
        loop {
            for payload in consumer.next().await? {
                let sent = Duration::from_nanos((&payload[..]).get_u64());
                let taken = start.elapsed().saturating_sub(sent);
                if came.send(taken).is_err() {
                    return Ok::<_, Failure>(());
                }
            }
        }
    });
    let mut tasks = JoinSet::new();
    for mut client in ready {
        let stop = Arc::clone(&stop);
        tasks.spawn(async move {
            let mut sent = 0u64;
            while !stop.load(Relaxed) {
                let nanos = u64::try_from(start.elapsed().as_nanos())?;
                client.publish(topic, &stamped(nanos)).await?;
                sent += 1;
            }
            Ok::<_, Failure>(sent)
        });
    }
    tokio::time::sleep(span).await;
    stop.store(true, Relaxed);
    let mut published = 0;
    while let Some(sent) = tasks.join_next().await {
        published += sent??;
    }
    let elapsed = start.elapsed();
    let mut tally = Tally::default();
    while tally.operations < published {
        match timeout(PATIENCE, times.recv()).await {
            Ok(Some(taken)) => tally.add(taken, 1),
            _ => break,
        }
    }
    tally.errors = published - tally.operations;
    consuming.abort();
    Ok((tally, elapsed))
}

/// One writer; the time of a round is until the last watcher has seen the value.
async fn watch(
    system: &System,
    watchers: usize,
    span: Duration,
) -> Result<(Tally, Duration), Failure> {
    let watched = "watched-key";
    let (saw, mut seen) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    while tasks.len() < watchers {
        let connection = system.connect().await?;
        for _ in 0..WATCHERS.min(watchers - tasks.len()) {
            let mut watcher = connection.watch(watched).await?;
            let saw = saw.clone();
            tasks.spawn(async move {
                while let Ok(value) = watcher.next().await {
                    if saw.send((&value[..]).get_u64()).is_err() {
                        return;
                    }
                }
            });
        }
    }
    let mut writer = system.connect().await?.client().await?;
    let mut tally = Tally::default();
    let begun = Instant::now();
    let mut round = 0u64;
    while begun.elapsed() < span {
        round += 1;
        let at = Instant::now();
        writer.put(watched, &stamped(round)).await?;
        let mut missing = watchers;
        while missing > 0 {
            match timeout(PATIENCE, seen.recv()).await {
                Ok(Some(number)) if number == round => missing -= 1,
                Ok(Some(_)) => {}
                _ => {
                    tally.errors += missing as u64;
                    break;
                }
            }
        }
        tally.add(at.elapsed(), 1);
    }
    tasks.abort_all();
    Ok((tally, begun.elapsed()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [system, address, work, count, seconds, keys, rest @ ..] = args.as_slice() else {
        return Err("usage: state SYSTEM ADDRESS WORK CLIENTS SECONDS KEYS [TOKEN]".into());
    };
    let system = System::new(system, address, rest.first().map(String::as_str))?;
    let span = Duration::from_secs_f64(seconds.parse()?);
    let (count, keys) = (count.parse()?, keys.parse()?);
    let begun = Instant::now();
    let (tally, elapsed) = match work.as_str() {
        "prepare" => {
            system.prepare().await?;
            (Tally::default(), begun.elapsed())
        }
        "fill" => (fill(&system, keys).await?, begun.elapsed()),
        "deliver" => deliver(&system, count, span).await?,
        "watch" => watch(&system, count, span).await?,
        other => steady(&system, other, count, span, keys).await?,
    };
    println!("{}", tally.report(elapsed));
    Ok(())
}
