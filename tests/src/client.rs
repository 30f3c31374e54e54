//! A user's two tools: the CLI and curl.

use std::{io::Write as _, process::Stdio};

use serde_json::Value;

use crate::Server;

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status.
    pub code: i32,
}

impl Outcome {
    /// Panics unless the command succeeded; returns its standard output.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Panics unless the command failed; returns both outputs together.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_ne!(self.code, 0, "succeeded with: {}", self.stdout);
        format!("{}{}", self.stdout, self.stderr)
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }
}

/// What curl received.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header block as received, names in lower case.
    pub headers: String,
    /// Body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }
}

impl Server {
    /// Runs `micro` with these arguments, as the user of this server's home directory.
    pub fn cli<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        self.cli_with_input(args, "")
    }

    /// The same, with text on standard input.
    pub fn cli_with_input<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Outcome {
        let mut command = self.command(self.binary());
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("micro starts");
        // A command that reads nothing may be gone before it is written to.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        let output = child.wait_with_output().expect("micro ends");
        Outcome {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Runs curl against the gateway; `path` begins with a slash.
    #[track_caller]
    pub fn curl(&self, path: &str, args: &[&str]) -> Reply {
        self.curl_url(&format!("http://{}{path}", self.address("gateway")), args)
    }

    /// Runs curl against any URL.
    #[track_caller]
    pub fn curl_url(&self, url: &str, args: &[&str]) -> Reply {
        self.listen(url, args)
            .unwrap_or_else(|why| panic!("curl {url}: {why}"))
    }

    /// Runs curl against any URL for as long as `args` say; fails with curl's words when nothing at
    /// all came, as from a stream on which nothing happens.
    ///
    /// # Errors
    /// See above.
    pub fn listen(&self, url: &str, args: &[&str]) -> Result<Reply, String> {
        let output = std::process::Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--include",
                "--http1.1",
                "--max-time",
                "30",
                "--globoff",
                "--noproxy",
                "*",
            ])
            .args(args)
            .arg(url)
            .output()
            .expect("curl is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.is_empty() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        // "100 Continue" may come before the real head.
        let mut rest = text.as_str();
        loop {
            let (head, body) = rest.split_once("\r\n\r\n").unwrap_or((rest, ""));
            let status = head
                .split_whitespace()
                .nth(1)
                .and_then(|s| s.parse().ok())
                .unwrap_or(0);
            if status == 100 {
                rest = body;
                continue;
            }
            return Ok(Reply {
                status,
                headers: head.to_lowercase(),
                body: body.to_owned(),
            });
        }
    }
}
