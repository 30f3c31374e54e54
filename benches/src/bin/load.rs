//! A closed-loop generator: `load http|grpc ADDRESS PATH CONNECTIONS STREAMS SECONDS BYTES [TOKEN]`.
//! Prints one JSON object with calls per second, percentiles in microseconds and errors. Any answer
//! that is not a success counts as an error.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{net::TcpStream, task::JoinSet};

type Failure = Box<dyn Error + Send + Sync>;

/// What every connection needs to know.
struct Plan {
    address: String,
    path: String,
    token: Option<String>,
    payload: Bytes,
    stop: AtomicBool,
}

/// Latencies in nanoseconds, and how many calls failed.
#[derive(Default)]
struct Tally {
    nanos: Vec<u32>,
    errors: u64,
}

impl Plan {
    fn request(&self, grpc: bool) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::post(if grpc {
            format!("http://{}{}", self.address, self.path)
        } else {
            self.path.clone()
        });
        request = if grpc {
            request
                .header("content-type", "application/grpc")
                .header("te", "trailers")
        } else {
            request
                .header("host", &self.address)
                .header("content-type", "application/json")
        };
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Ok(request.body(Full::new(self.payload.clone()))?)
    }
}

async fn http(plan: Arc<Plan>) -> Result<Tally, Failure> {
    let stream = TcpStream::connect(&plan.address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut tally = Tally::default();
    while !plan.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        sender.ready().await?;
        let response = sender.send_request(plan.request(false)?).await?;
        let good = response.status().is_success();
        let body = response.into_body().collect().await?.to_bytes();
        tally.record(begun, good && !body.is_empty());
    }
    Ok(tally)
}

async fn grpc(
    plan: Arc<Plan>,
    mut sender: conn::http2::SendRequest<Full<Bytes>>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    while !plan.stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        sender.ready().await?;
        let response = sender.send_request(plan.request(true)?).await?;
        let mut status = response.headers().get("grpc-status").cloned();
        let good = response.status().is_success();
        let body = response.into_body().collect().await?;
        if let Some(trailers) = body.trailers() {
            status = trailers.get("grpc-status").cloned().or(status);
        }
        let zero = status.is_none_or(|s| s == "0");
        tally.record(begun, good && zero && !body.to_bytes().is_empty());
    }
    Ok(tally)
}

impl Tally {
    fn record(&mut self, begun: Instant, good: bool) {
        self.nanos
            .push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        self.errors += u64::from(!good);
    }

    fn micros(&self, percentile: usize) -> f64 {
        let index = self.nanos.len() * percentile / 100;
        self.nanos
            .get(index)
            .map_or(0.0, |n| f64::from(*n) / 1000.0)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let [
        _,
        kind,
        address,
        path,
        connections,
        streams,
        seconds,
        bytes,
        rest @ ..,
    ] = args.as_slice()
    else {
        return Err(
            "usage: load http|grpc ADDRESS PATH CONNECTIONS STREAMS SECONDS BYTES [TOKEN]".into(),
        );
    };
    let message = micro_benches::request(bytes.parse()?);
    let payload = if kind == "grpc" {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut frame)?;
        frame.freeze()
    } else {
        Bytes::from(micro_benches::json(&message))
    };
    let plan = Arc::new(Plan {
        address: address.clone(),
        path: path.clone(),
        token: rest.first().cloned(),
        payload,
        stop: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..connections.parse::<usize>()? {
        if kind == "grpc" {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .handshake(TokioIo::new(stream))
                .await?;
            tokio::spawn(connection);
            for _ in 0..streams.parse::<usize>()? {
                callers.spawn(grpc(Arc::clone(&plan), sender.clone()));
            }
        } else {
            callers.spawn(http(Arc::clone(&plan)));
        }
    }
    tokio::time::sleep(Duration::from_secs_f64(seconds.parse()?)).await;
    plan.stop.store(true, Ordering::Relaxed);
    let mut all = Tally::default();
    while let Some(caller) = callers.join_next().await {
        match caller? {
            Ok(tally) => {
                all.nanos.extend(tally.nanos);
                all.errors += tally.errors;
            }
            Err(_) => all.errors += 1,
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    all.nanos.sort_unstable();
    let report = serde_json::json!({
        "calls": all.nanos.len(),
        "per_second": all.nanos.len() as f64 / elapsed,
        "p50": all.micros(50),
        "p99": all.micros(99),
        "errors": all.errors,
    });
    println!("{report}");
    Ok(())
}
