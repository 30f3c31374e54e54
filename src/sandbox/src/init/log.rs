//! The output of one instance on disk: `<unix ms> <o|e> <text>` lines, rotated by size.

use std::{fs::File, io::Write as _, os::fd::OwnedFd};

use micro_core::Timestamp;
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::{Mode, fchmod, fstat},
    unistd::{Uid, fchown},
};

/// Longer lines are cut into several.
const MAX_LINE: usize = 16 << 10;

/// Cuts output into lines and puts time and origin before each.
pub(super) struct Splitter {
    mark: u8,
    partial: Vec<u8>,
}

impl Splitter {
    pub(super) fn new(mark: u8) -> Self {
        let partial = Vec::new();
        Self { mark, partial }
    }

    pub(super) fn split(&mut self, text: &[u8], now: Timestamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 64);
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            let ended = self.partial.ends_with(b"\n");
            if ended {
                self.partial.pop();
                if self.partial.ends_with(b"\r") {
                    self.partial.pop();
                }
            }
            while self.partial.len() > MAX_LINE {
                let rest = self.partial.split_off(MAX_LINE);
                let head = std::mem::replace(&mut self.partial, rest);
                write_line(&mut out, self.mark, &head, now);
            }
            if ended {
                write_line(&mut out, self.mark, &self.partial, now);
                self.partial.clear();
            }
        }
        out
    }

    /// Whether a line waits for its end.
    pub(super) fn pending(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The line that waits, as it is.
    pub(super) fn flush(&mut self, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        if self.pending() {
            write_line(&mut out, self.mark, &self.partial, now);
            self.partial.clear();
        }
        out
    }
}

fn write_line(out: &mut Vec<u8>, mark: u8, text: &[u8], now: Timestamp) {
    out.extend_from_slice(now.0.to_string().as_bytes());
    out.extend_from_slice(&[b' ', mark, b' ']);
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// `<name>`, and its elder siblings `<name>.1` and `<name>.2`. Works through a descriptor of their
/// directory, so it needs no path.
pub(super) struct Log {
    dir: OwnedFd,
    name: String,
    file: Option<File>,
    size: u64,
    limit: u64,
    lost: u64,
}

impl Log {
    /// `owner` is who will rotate it.
    pub(super) fn open(
        dir: OwnedFd,
        name: String,
        limit: u64,
        owner: Option<u32>,
    ) -> nix::Result<Self> {
        let mut log = Self {
            dir,
            name,
            file: None,
            size: 0,
            limit: limit.max(4 << 10),
            lost: 0,
        };
        let file = log.open_file()?;
        if let Some(uid) = owner {
            fchown(file, Some(Uid::from_raw(uid)), None)?;
        }
        Ok(log)
    }

    fn open_file(&mut self) -> nix::Result<&File> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o640);
        let file = File::from(openat(&self.dir, self.name.as_str(), flags, mode)?);
        let _ = fchmod(&file, mode); // fails for one made by somebody else, which is as good
        self.size = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Ok(self.file.insert(file))
    }

    /// Adds whole lines. What cannot be written is counted, and said once writing works again.
    pub(super) fn append(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let length = lines.len() as u64;
        if self.size > 0 && self.size + length > self.limit {
            self.rotate();
        }
        if self.write(lines).is_err() {
            self.file = None;
            self.lost += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        }
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if self.lost > 0 {
            let now = lines.split(|byte| *byte == b' ').next().unwrap_or_default();
            let note = format!(
                "{} e {} lines could not be written\n",
                String::from_utf8_lossy(now),
                self.lost
            );
            file.write_all(note.as_bytes())?;
            self.size += note.len() as u64;
            self.lost = 0;
        }
        file.write_all(lines)?;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) {
        let (name, elder, eldest) = (
            self.name.clone(),
            format!("{}.1", self.name),
            format!("{}.2", self.name),
        );
        for (from, to) in [(&elder, &eldest), (&name, &elder)] {
            match renameat(&self.dir, from.as_str(), &self.dir, to.as_str()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(_) => return, // go on in the same file rather than lose it
            }
        }
        self.file = None;
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(7);

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_marked_whatever_pieces_they_come_in() {
        let mut splitter = Splitter::new(b'o');
        let mut out = splitter.split(b"on", NOW);
        assert!(splitter.pending());
        out.extend(splitter.split(b"e\r\n\ntwo\nthr", NOW));
        out.extend(splitter.flush(NOW));
        assert_eq!(text(out), "7 o one\n7 o \n7 o two\n7 o thr\n");
        assert!(splitter.flush(NOW).is_empty());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut splitter = Splitter::new(b'e');
        let out = splitter.split(&vec![b'x'; MAX_LINE * 2 + 1], NOW);
        assert_eq!(out.split(|b| *b == b'\n').count(), 3);
        assert!(splitter.pending());
    }

    #[test]
    fn three_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let open = crate::tree::open(dir.path()).unwrap();
        let mut log = Log::open(open, "a.log".into(), 4 << 10, None).unwrap();
        let line = [b"7 o ".to_vec(), vec![b'x'; 1000], b"\n".to_vec()].concat();
        for _ in 0..40 {
            log.append(&line);
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                assert!(e.metadata().unwrap().len() <= 4 << 10);
                e.file_name().into_string().unwrap()
            })
            .collect();
        names.sort();
        assert_eq!(names, ["a.log", "a.log.1", "a.log.2"]);
    }
}
