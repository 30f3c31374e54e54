//! What was asked, how it ended and how long it took, per door and service. Counting is a few
//! relaxed atomic additions; the labels are bounded by the services that exist.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use http::StatusCode;
use tonic::Code;

use crate::ports::Door;

/// Upper bounds of the latency histogram, in microseconds.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
];

/// The gRPC codes in their order, then the classes of HTTP statuses.
const OUTCOMES: [&str; 22] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
];

/// How a request ended: an index into [`OUTCOMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome(usize);

impl Outcome {
    pub(crate) const CANCELLED: Self = Self(Code::Cancelled as usize);

    pub(crate) fn of_http(status: StatusCode) -> Self {
        Self(16 + usize::from(status.as_u16() / 100).clamp(1, 5))
    }

    /// For an error object, whose code is an HTTP status.
    pub(crate) fn of_wire(code: u16) -> Self {
        Code::from_i32(micro_core::fault::grpc_of_http(code)).into()
    }
}

impl From<Code> for Outcome {
    fn from(code: Code) -> Self {
        Self(code as usize)
    }
}

#[derive(Debug, Default)]
struct DoorStats {
    outcomes: [AtomicU64; OUTCOMES.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The counters of one service.
#[derive(Debug, Default)]
pub(crate) struct Stats([DoorStats; 3]);

impl Stats {
    fn door(&self, door: Door) -> &DoorStats {
        let [gateway, proxy, mesh] = &self.0;
        match door {
            Door::Gateway => gateway,
            Door::Proxy => proxy,
            Door::Mesh => mesh,
        }
    }

    fn add(&self, door: Door, outcome: Outcome, micros: u64) {
        let stats = self.door(door);
        if let Some(counter) = stats.outcomes.get(outcome.0) {
            counter.fetch_add(1, Relaxed);
        }
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(counter) = stats.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        stats.micros.fetch_add(micros, Relaxed);
    }
}

/// One request on its way. It is counted when this is dropped: as cancelled, unless somebody said
/// before how it ended.
#[derive(Debug)]
pub(crate) struct Record {
    stats: Arc<Stats>,
    door: Door,
    started: Instant,
    outcome: Outcome,
}

impl Record {
    pub(crate) fn start(stats: &Arc<Stats>, door: Door) -> Self {
        Self {
            stats: Arc::clone(stats),
            door,
            started: Instant::now(),
            outcome: Outcome::CANCELLED,
        }
    }

    pub(crate) fn ended(&mut self, outcome: impl Into<Outcome>) {
        self.outcome = outcome.into();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.add(self.door, self.outcome, micros);
    }
}

/// Requests that never reached a service.
#[derive(Debug, Default)]
pub(crate) struct Refused([[AtomicU64; OUTCOMES.len()]; 3]);

impl Refused {
    pub(crate) fn add(&self, door: Door, outcome: Outcome) {
        let counter = self.0.get(door as usize).and_then(|d| d.get(outcome.0));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// One service on the page.
pub(crate) struct Row<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) service: &'a str,
    pub(crate) stats: &'a Stats,
    /// Requests on their way to each instance; empty for a built-in.
    pub(crate) instances: Vec<(String, usize, bool)>,
}

/// The Prometheus page. Names are checked types without quotes, so labels need no escaping.
pub(crate) fn render(rows: &[Row<'_>], refused: &Refused) -> String {
    let mut page = String::with_capacity(4096);
    head(
        &mut page,
        "micro_requests_total",
        "counter",
        "Requests that reached a service, by how they ended.",
    );
    each(rows, |row, door, stats| {
        for (name, counter) in OUTCOMES.iter().zip(&stats.outcomes) {
            let count = counter.load(Relaxed);
            if count > 0 {
                let _ = writeln!(
                    page,
                    "micro_requests_total{{door=\"{door}\",namespace=\"{}\",service=\"{}\",code=\"{name}\"}} {count}",
                    row.namespace, row.service
                );
            }
        }
    });
    head(
        &mut page,
        "micro_request_duration_seconds",
        "histogram",
        "Time from admission to the last byte of the answer.",
    );
    each(rows, |row, door, stats| {
        histogram(&mut page, row, door, stats)
    });
    head(
        &mut page,
        "micro_requests_in_flight",
        "gauge",
        "Requests on their way to an instance.",
    );
    for row in rows {
        for (address, in_flight, _) in &row.instances {
            let _ = writeln!(
                page,
                "micro_requests_in_flight{{namespace=\"{}\",service=\"{}\",instance=\"{address}\"}} {in_flight}",
                row.namespace, row.service
            );
        }
    }
    head(
        &mut page,
        "micro_instance_up",
        "gauge",
        "0 while an instance takes no connections.",
    );
    for row in rows {
        for (address, _, up) in &row.instances {
            let _ = writeln!(
                page,
                "micro_instance_up{{namespace=\"{}\",service=\"{}\",instance=\"{address}\"}} {}",
                row.namespace,
                row.service,
                u8::from(*up)
            );
        }
    }
    head(
        &mut page,
        "micro_requests_refused_total",
        "counter",
        "Requests that identity, rules or routing turned away.",
    );
    for (door, counters) in Door::ALL.into_iter().zip(&refused.0) {
        for (name, counter) in OUTCOMES.iter().zip(counters) {
            let count = counter.load(Relaxed);
            if count > 0 {
                let _ = writeln!(
                    page,
                    "micro_requests_refused_total{{door=\"{door}\",code=\"{name}\"}} {count}"
                );
            }
        }
    }
    page
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn each(rows: &[Row<'_>], mut write: impl FnMut(&Row<'_>, Door, &DoorStats)) {
    for row in rows {
        for door in Door::ALL {
            write(row, door, row.stats.door(door));
        }
    }
}

fn histogram(page: &mut String, row: &Row<'_>, door: Door, stats: &DoorStats) {
    let counts: Vec<u64> = stats.buckets.iter().map(|b| b.load(Relaxed)).collect();
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return;
    }
    let labels = format!(
        "door=\"{door}\",namespace=\"{}\",service=\"{}\"",
        row.namespace, row.service
    );
    let mut below = 0;
    for (bound, count) in BOUNDS.iter().zip(&counts) {
        below += count;
        let (seconds, rest) = (bound / 1_000_000, bound % 1_000_000);
        let _ = writeln!(
            page,
            "micro_request_duration_seconds_bucket{{{labels},le=\"{seconds}.{rest:06}\"}} {below}"
        );
    }
    let micros = stats.micros.load(Relaxed);
    let _ = writeln!(
        page,
        "micro_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {total}\n\
         micro_request_duration_seconds_sum{{{labels}}} {}.{:06}\n\
         micro_request_duration_seconds_count{{{labels}}} {total}",
        micros / 1_000_000,
        micros % 1_000_000
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_with_its_end_and_its_time() {
        let stats = Arc::new(Stats::default());
        let mut record = Record::start(&stats, Door::Mesh);
        record.ended(Code::NotFound);
        drop(record);
        drop(Record::start(&stats, Door::Gateway));
        stats.add(Door::Proxy, Outcome::of_http(StatusCode::BAD_GATEWAY), 700);
        let refused = Refused::default();
        refused.add(Door::Proxy, Outcome::of_wire(401));
        let row = Row {
            namespace: "micro",
            service: "hello",
            stats: &stats,
            instances: vec![("127.0.0.1:1".into(), 2, true)],
        };
        let page = render(&[row], &refused);
        for line in [
            "micro_requests_total{door=\"mesh\",namespace=\"micro\",service=\"hello\",code=\"not_found\"} 1",
            "micro_requests_total{door=\"gateway\",namespace=\"micro\",service=\"hello\",code=\"cancelled\"} 1",
            "micro_requests_total{door=\"proxy\",namespace=\"micro\",service=\"hello\",code=\"5xx\"} 1",
            "micro_request_duration_seconds_bucket{door=\"proxy\",namespace=\"micro\",service=\"hello\",le=\"0.000500\"} 0",
            "micro_request_duration_seconds_bucket{door=\"proxy\",namespace=\"micro\",service=\"hello\",le=\"0.001000\"} 1",
            "micro_request_duration_seconds_sum{door=\"proxy\",namespace=\"micro\",service=\"hello\"} 0.000700",
            "micro_requests_in_flight{namespace=\"micro\",service=\"hello\",instance=\"127.0.0.1:1\"} 2",
            "micro_requests_refused_total{door=\"proxy\",code=\"unauthenticated\"} 1",
        ] {
            assert!(page.contains(line), "{line}\nis not in\n{page}");
        }
    }
}
