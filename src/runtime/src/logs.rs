//! Reads what instances wrote. Each instance's init keeps `<id>.log`, `<id>.log.1`, `<id>.log.2` with
//! lines `<unix ms> <o|e> <text>`; here they become one stream in the order of time.
//!
//! Everything in this file blocks on small reads of files: callers run it on a blocking thread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use micro_core::{InstanceId, Timestamp};

/// A line of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When init read it.
    pub time: Timestamp,
    /// Whether it came from standard error.
    pub error: bool,
    /// The line without its end.
    pub text: String,
    /// Who wrote it.
    pub instance: InstanceId,
}

/// More than init's own bound, so a whole line always fits.
const MAX_LINE: u64 = 32 * 1024;
/// How much one look at one file may take, so that a busy instance does not starve the others.
const MAX_LOOK: u64 = 256 * 1024;

/// The files of one instance, oldest first.
pub(crate) fn files(dir: &Path, id: &InstanceId) -> [PathBuf; 3] {
    [".log.2", ".log.1", ".log"].map(|end| dir.join(format!("{id}{end}")))
}

/// The instances of which something is kept in `dir`, oldest first (ids sort by time).
pub fn instances(dir: &Path) -> Vec<InstanceId> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut ids: Vec<InstanceId> = entries
        .flatten()
        .filter_map(|e| {
            let name = e.file_name().into_string().ok()?;
            InstanceId::parse(name.strip_suffix(".log")?).ok()
        })
        .collect();
    ids.sort();
    ids
}

fn parse(line: &[u8], instance: &InstanceId) -> Option<Line> {
    let text = String::from_utf8_lossy(line);
    let (time, rest) = text.trim_end_matches(['\n', '\r']).split_once(' ')?;
    let (kind, text) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(Line {
        time: Timestamp(time.parse().ok()?),
        error: kind == "e",
        text: text.to_owned(),
        instance: instance.clone(),
    })
}

/// Where the last `count` lines of the first `end` bytes of a file begin, and how many there are.
fn tail_offset(path: &Path, end: u64, count: u64) -> io::Result<(u64, u64)> {
    let mut file = fs::File::open(path)?;
    let mut end = file.metadata()?.len().min(end);
    let mut found = 0;
    let mut block = vec![0; 64 * 1024];
    let mut last = true;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(0);
        let piece = block.get_mut(..size).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(piece)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The newline at the very end closes the last line instead of opening another.
            if std::mem::take(&mut last) && start + at as u64 + 1 == end {
                continue;
            }
            found += 1;
            if found == count {
                return Ok((start + at as u64 + 1, found));
            }
        }
        last = false;
        end = start;
    }
    Ok((0, found + 1))
}

/// Up to where a file has whole lines.
fn whole_lines(path: &Path) -> io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(MAX_LINE);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(length - start).read_to_end(&mut end)?;
    let partial = end.iter().rev().take_while(|b| **b != b'\n').count();
    Ok(length.saturating_sub(partial as u64))
}

/// One instance's lines from some point on.
struct Reader {
    id: InstanceId,
    /// Files with the part of each to read.
    rest: VecDeque<(PathBuf, u64, u64)>,
    now: Option<BufReader<io::Take<fs::File>>>,
}

impl Reader {
    /// Begins so that at least the last `count` lines come (all of them when it is 0), and stops at
    /// `end` of the newest file.
    fn new(dir: &Path, id: &InstanceId, count: u64, end: u64) -> Self {
        let mut rest = VecDeque::new();
        let mut missing = count;
        for (age, path) in files(dir, id).into_iter().rev().enumerate() {
            let end = if age == 0 { end } else { u64::MAX };
            if count == 0 {
                if path.is_file() {
                    rest.push_front((path, 0, end));
                }
                continue;
            }
            if missing == 0 {
                break;
            }
            if let Ok((offset, found)) = tail_offset(&path, end, missing) {
                missing = missing.saturating_sub(found);
                rest.push_front((path, offset, end));
            }
        }
        Self {
            id: id.clone(),
            rest,
            now: None,
        }
    }

    fn next(&mut self) -> Option<Line> {
        loop {
            if self.now.is_none() {
                let (path, offset, end) = self.rest.pop_front()?;
                let Ok(mut file) = fs::File::open(path) else {
                    continue;
                };
                if file.seek(SeekFrom::Start(offset)).is_err() {
                    continue;
                }
                let part = file.take(end.saturating_sub(offset));
                self.now = Some(BufReader::with_capacity(64 * 1024, part));
            }
            let mut line = Vec::new();
            let read = self
                .now
                .as_mut()
                .map_or(Ok(0), |r| r.take(MAX_LINE).read_until(b'\n', &mut line));
            match read {
                Ok(0) | Err(_) => self.now = None,
                Ok(_) => {
                    if let Some(line) = parse(&line, &self.id) {
                        return Some(line);
                    }
                }
            }
        }
    }
}

/// Hands the kept lines of `ids` to `each` in the order of time: exactly the last `count`, or all of
/// them when it is 0, and none before `since`. What a `follower` will bring is left to it. Stops when
/// `each` says so.
pub fn read(
    dir: &Path,
    ids: &[InstanceId],
    count: u64,
    since: Timestamp,
    follower: Option<&Follower>,
    mut each: impl FnMut(Line) -> bool,
) {
    let end = |id| follower.map_or(u64::MAX, |f| f.begins(id));
    let mut readers: Vec<Reader> = ids
        .iter()
        .map(|id| Reader::new(dir, id, count, end(id)))
        .collect();
    // By time, then by instance; lines of one instance keep their order whatever the clock did.
    let mut heap = BinaryHeap::new();
    let mut heads: BTreeMap<usize, Line> = BTreeMap::new();
    for (at, reader) in readers.iter_mut().enumerate() {
        if let Some(line) = reader.next() {
            heap.push(Reverse((line.time, at)));
            heads.insert(at, line);
        }
    }
    let keep = usize::try_from(count).unwrap_or(usize::MAX);
    let mut last: VecDeque<Line> = VecDeque::new();
    while let Some(Reverse((_, at))) = heap.pop() {
        let Some(line) = heads.remove(&at) else {
            continue;
        };
        if let Some(next) = readers.get_mut(at).and_then(Reader::next) {
            heap.push(Reverse((next.time.max(line.time), at)));
            heads.insert(at, next);
        }
        if line.time < since {
            continue;
        }
        if count == 0 {
            if !each(line) {
                return;
            }
        } else {
            if last.len() == keep {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    for line in last {
        if !each(line) {
            return;
        }
    }
}

/// The last `count` lines of one instance, as texts.
pub(crate) fn tail(dir: &Path, id: &InstanceId, count: u64) -> Vec<String> {
    let mut lines = Vec::new();
    read(
        dir,
        std::slice::from_ref(id),
        count,
        Timestamp(0),
        None,
        |line| {
            lines.push(line.text);
            true
        },
    );
    lines
}

/// Follows files as they grow and rotate. Looks, rather than being told: a few opened files and one
/// `stat` per look cost less than keeping watches alive over renames.
pub struct Follower {
    dir: PathBuf,
    cursors: BTreeMap<InstanceId, Cursor>,
}

#[derive(Default)]
struct Cursor {
    file: Option<fs::File>,
    inode: u64,
    partial: Vec<u8>,
    /// Where to begin in a file that is opened for the first time.
    from: u64,
}

impl Follower {
    /// Follows instances in `dir`. Those of `known` are followed from their present end, others from
    /// their beginning.
    pub fn new(dir: &Path, known: &[InstanceId]) -> Self {
        let mut follower = Self::from_start(dir);
        for id in known {
            let path = dir.join(format!("{id}.log"));
            let from = whole_lines(&path).unwrap_or(0);
            let cursor = Cursor {
                from,
                ..Cursor::default()
            };
            follower.cursors.insert(id.clone(), cursor);
        }
        follower
    }

    /// Where in the newest file of an instance the first look begins.
    fn begins(&self, id: &InstanceId) -> u64 {
        self.cursors.get(id).map_or(0, |c| c.from)
    }

    /// Follows every instance from its beginning.
    pub fn from_start(dir: &Path) -> Self {
        Self {
            dir: dir.into(),
            cursors: BTreeMap::new(),
        }
    }

    /// What `ids` wrote since the last look, in the order of time.
    pub fn look(&mut self, ids: &[InstanceId]) -> Vec<Line> {
        self.cursors.retain(|id, _| ids.contains(id));
        let mut lines = Vec::new();
        for id in ids {
            let cursor = self.cursors.entry(id.clone()).or_default();
            cursor.look(&self.dir, id, &mut lines);
        }
        lines.sort_by_key(|l| l.time);
        lines
    }
}

impl Cursor {
    fn look(&mut self, dir: &Path, id: &InstanceId, lines: &mut Vec<Line>) {
        let path = dir.join(format!("{id}.log"));
        for _ in 0..3 {
            // Which file has the name is asked before reading: what is written to the old one until
            // it loses its name is then read in any case.
            let inode = fs::metadata(&path).map_or(0, |m| m.ino());
            if self.file.is_some() {
                let all = self.read(id, lines);
                if !all || inode == self.inode || inode == 0 {
                    return;
                }
                // Rotated, and the old file is read to its end.
                self.file = None;
                self.from = 0;
            }
            let Ok(mut file) = fs::File::open(&path) else {
                return;
            };
            let from = std::mem::take(&mut self.from);
            let length = file.metadata().map_or(0, |m| m.len());
            // A file shorter than where we were is a new one.
            let from = if from > length { 0 } else { from };
            if file.seek(SeekFrom::Start(from)).is_err() {
                return;
            }
            self.inode = file.metadata().map_or(0, |m| m.ino());
            self.file = Some(file);
        }
    }

    /// Reads what is there; false when there is more than one look takes.
    fn read(&mut self, id: &InstanceId, lines: &mut Vec<Line>) -> bool {
        let Some(file) = &mut self.file else {
            return true;
        };
        let mut bytes = std::mem::take(&mut self.partial);
        let read = file.take(MAX_LOOK).read_to_end(&mut bytes).unwrap_or(0);
        let whole = bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        self.partial = bytes.split_off(whole);
        for line in bytes.split(|b| *b == b'\n') {
            lines.extend(parse(line, id));
        }
        (read as u64) < MAX_LOOK
    }
}

/// Removes the files of the instances of `dir` that come before the last `keep`, but none of `alive`.
pub fn prune(
    dir: &Path,
    keep: usize,
    alive: impl Fn(&InstanceId) -> bool,
    own: impl Fn(&InstanceId) -> bool,
) {
    let ids: Vec<InstanceId> = instances(dir).into_iter().filter(|id| own(id)).collect();
    let old = ids.len().saturating_sub(keep);
    for id in ids.iter().take(old).filter(|id| !alive(id)) {
        for file in files(dir, id) {
            // A file that is not ours to remove stays; the next pruning tries again.
            drop(fs::remove_file(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn id(n: u32) -> InstanceId {
        InstanceId::parse(&format!("i-{n}")).unwrap()
    }

    fn append(dir: &Path, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(dir.join(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn texts(dir: &Path, ids: &[InstanceId], count: u64) -> Vec<String> {
        let mut found = Vec::new();
        read(dir, ids, count, Timestamp(0), None, |l| {
            found.push(l.text);
            true
        });
        found
    }

    #[test]
    fn instances_are_merged_by_time_and_counted_exactly() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), "i-1.log.1", "1 o a\n3 o c\n");
        append(dir.path(), "i-1.log", "5 e e\n7 o g\n");
        append(dir.path(), "i-2.log", "2 o b\n4 o d d\n6 o f\n");
        let ids = instances(dir.path());
        assert_eq!(ids, [id(1), id(2)]);
        let all = ["a", "b", "c", "d d", "e", "f", "g"];
        assert_eq!(texts(dir.path(), &ids, 0), all);
        for n in 1..=8_usize {
            let expected = &all[all.len().saturating_sub(n)..];
            assert_eq!(texts(dir.path(), &ids, n as u64), expected, "{n}");
        }
        let mut since = Vec::new();
        read(dir.path(), &ids, 0, Timestamp(6), None, |l| {
            since.push(l.error);
            true
        });
        assert_eq!(since, [false, false]);
    }

    #[test]
    fn long_files_are_read_from_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for n in 0..20_000 {
            text.push_str(&format!("{n} o line {n}\n"));
        }
        append(dir.path(), "i-1.log", &text);
        assert_eq!(texts(dir.path(), &[id(1)], 2), ["line 19998", "line 19999"]);
        assert_eq!(texts(dir.path(), &[id(1)], 15_000).len(), 15_000);
        assert_eq!(texts(dir.path(), &[id(1)], 0).len(), 20_000);
        assert_eq!(tail(dir.path(), &id(1), 1), ["line 19999"]);
    }

    #[test]
    fn a_follower_sees_growth_rotation_and_new_instances() {
        let dir = tempfile::tempdir().unwrap();
        append(dir.path(), "i-1.log", "1 o old\n2 o ha");
        let mut follower = Follower::new(dir.path(), &[id(1)]);
        let mut past = Vec::new();
        read(
            dir.path(),
            &[id(1)],
            5,
            Timestamp(0),
            Some(&follower),
            |l| {
                past.push(l.text);
                true
            },
        );
        assert_eq!(
            past,
            ["old"],
            "the follower brings the half line once it is whole"
        );
        let ids = [id(1), id(2)];
        let mut look =
            || -> Vec<String> { follower.look(&ids).into_iter().map(|l| l.text).collect() };
        assert!(look().is_empty(), "what was there is not repeated");
        append(dir.path(), "i-1.log", "lf");
        assert!(look().is_empty(), "a line comes when it is whole");
        append(dir.path(), "i-1.log", " line\n3 o before\n");
        fs::rename(dir.path().join("i-1.log"), dir.path().join("i-1.log.1")).unwrap();
        append(dir.path(), "i-1.log", "4 o after\n");
        append(dir.path(), "i-2.log", "5 o new\n");
        assert_eq!(look(), ["half line", "before", "after", "new"]);
        append(dir.path(), "i-2.log", "6 o more\n");
        assert_eq!(look(), ["more"]);
    }

    #[test]
    fn only_the_last_instances_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=7 {
            append(dir.path(), &format!("i-{n}.log"), "1 o x\n");
            append(dir.path(), &format!("i-{n}.log.1"), "1 o x\n");
        }
        append(dir.path(), "b-1.log", "1 o x\n");
        prune(
            dir.path(),
            5,
            |i| *i == id(1),
            |i| i.as_str().starts_with("i-"),
        );
        let names: Vec<String> = instances(dir.path())
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["b-1", "i-1", "i-3", "i-4", "i-5", "i-6", "i-7"]);
        assert!(!dir.path().join("i-2.log.1").exists());
    }
}
