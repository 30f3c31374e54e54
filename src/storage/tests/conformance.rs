//! What every engine must do, seen through the handles. `Opener` says how one is opened; another
//! engine adds one line at the end of this file.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::path::Path;

use micro_core::{Clock, Namespace, Timestamp};
use micro_storage::{Error, Options, Range, Revision, Space, Storage};

#[path = "conformance/model.rs"]
mod model;
#[path = "conformance/rows.rs"]
mod rows;
#[path = "conformance/streams.rs"]
mod streams;
#[path = "conformance/whole.rs"]
mod whole;

/// How the engine under test is opened on a directory, again and again.
pub trait Opener: Clone + Send + 'static {
    /// Opens what is in `directory`.
    fn open(&self, directory: &Path, options: Options) -> Storage;
}

/// The engine that the product uses.
#[derive(Clone, Copy)]
struct Local;

impl Opener for Local {
    fn open(&self, directory: &Path, options: Options) -> Storage {
        Storage::open(directory, options).unwrap()
    }
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).unwrap()
}

/// An engine on a directory of its own, with a memtable so small that checkpoints happen.
struct Bench<O> {
    opener: O,
    directory: tempfile::TempDir,
    options: Options,
    storage: Storage,
}

impl<O: Opener> Bench<O> {
    fn new(opener: &O) -> Self {
        let options = Options {
            memory: 256 << 10,
            cache: 1 << 20,
            segment: 1 << 20,
            clock: Clock::fake(Timestamp(1_000_000)),
            ..Options::default()
        };
        Self::with(opener, options)
    }

    fn with(opener: &O, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = opener.open(directory.path(), options.clone());
        Self {
            opener: opener.clone(),
            directory,
            options,
            storage,
        }
    }

    fn space(&self, namespace: &str) -> Space {
        self.storage.space(&ns(namespace))
    }

    fn reopen(&mut self) {
        self.storage.close();
        self.storage = self
            .opener
            .open(self.directory.path(), self.options.clone());
    }
}

/// The first file below `directory` with that ending.
fn find(directory: &Path, ending: &str) -> std::path::PathBuf {
    let mut places = vec![directory.to_owned()];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(
                std::fs::read_dir(&place)
                    .unwrap()
                    .map(|e| e.unwrap().path()),
            );
        } else if place.extension().is_some_and(|e| e == ending) {
            return place;
        }
    }
    panic!("there is none");
}

async fn put(space: &Space, key: &[u8], value: &[u8]) -> Revision {
    let mut batch = space.batch();
    batch.put("t", key, value);
    batch.commit().await.unwrap().revision
}

async fn delete(space: &Space, key: &[u8]) -> Revision {
    let mut batch = space.batch();
    batch.delete("t", key);
    batch.commit().await.unwrap().revision
}

fn keys(space: &Space, range: Range<'_>) -> Vec<String> {
    let rows = space.scan("t", range).unwrap();
    rows.iter()
        .map(|row| String::from_utf8_lossy(&row.key).into_owned())
        .collect()
}

macro_rules! conformance {
    ($opener:expr; $($group:ident: $($name:ident),* $(,)?;)*) => {$($(
        #[test]
        fn $name() {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(super::$group::$name($opener));
        }
    )*)*};
}

mod local {
    use super::Local;

    conformance! { Local;
        rows: a_row_is_there_when_its_commit_is_answered, tables_and_namespaces_do_not_see_each_other, a_batch_happens_whole_or_not_at_all, expectations_hold_against_what_came_before, of_many_that_expect_the_same_one_wins, counting_up_by_compare_and_set_loses_nothing, scans_page_in_both_directions, many_writers_are_all_answered, a_large_value_comes_back;
        streams: a_watch_gives_every_change_below_its_prefix, a_slow_watcher_is_told_so_and_holds_up_nobody, topics_keep_their_order_and_their_numbers, old_entries_go_and_stay_gone;
        whole: a_lease_has_one_owner_at_a_time, a_quota_holds_and_deleting_makes_room, what_is_closed_says_so, blobs_are_streamed_and_counted, a_snapshot_is_the_state_of_one_moment;
    }

    #[tokio::test]
    async fn checking_finds_what_was_damaged() {
        let bench = super::Bench::new(&Local);
        let space = bench.space("a");
        for i in 0..100u32 {
            let mut batch = space.batch();
            batch
                .put("t", i.to_be_bytes(), vec![1; 500])
                .append("log", vec![2; 5000]);
            batch.commit().await.unwrap();
        }
        bench.storage.close();
        let directory = bench.directory.path();
        let report = super::Storage::check(directory).unwrap();
        assert_eq!(report.problems, [""; 0]);
        assert_eq!((report.rows, report.topics, report.entries), (100, 1, 100));
        let segment = super::find(&directory.join("topics"), "seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[300_000] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let report = super::Storage::check(directory).unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
        assert!(report.problems[0].contains("log"), "{report:?}");
        assert!(super::Storage::check(&directory.join("none")).is_err());
    }

    #[test]
    fn a_second_opener_is_told_that_it_is_in_use() {
        let bench = super::Bench::new(&Local);
        let second = super::Storage::open(bench.directory.path(), super::Options::default());
        assert!(matches!(second, Err(super::Error::Locked { .. })));
    }

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.redb"), vec![b'x'; 100_000]).unwrap();
        let refused = super::Storage::open(directory.path(), super::Options::default());
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("index.redb"), "{text}");
    }

    #[test]
    fn it_behaves_like_an_ordered_map() {
        super::model::run(Local);
    }
}
