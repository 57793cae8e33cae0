//! The recording of a history: a client's pen, and the recorder process at the other end of its pipe. The recorder
//! lives on when the client is stopped or killed.
//!
//! The client itself puts the time into each line: after an acquire has returned, and before a release begins. So a
//! pause of the client makes a hold look shorter than it was, never longer.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::{Line, Phase, Verb, now};

/// The word that makes a program of this package a recorder. A path follows.
pub const AS_RECORDER: &str = "as-recorder";

/// A recorder process. Its drop waits until everything was written, which is when no client has the pipe any more.
#[derive(Debug)]
pub struct Recorder(Child);

impl Recorder {
    /// Starts `program as-recorder path`. Returns the end of the pipe to which a client writes.
    pub fn start(program: &Path, path: &Path) -> std::io::Result<(Self, OwnedFd)> {
        let mut command = Command::new(program);
        command.arg(AS_RECORDER).arg(path).stdin(Stdio::piped());
        let mut child = command.spawn()?;
        let pipe = child.stdin.take().expect("it was piped");
        Ok((Self(child), pipe.into()))
    }

    /// Waits until all clients have ended and everything was written.
    pub fn finish(mut self) -> std::io::Result<()> {
        self.0.wait().map(drop)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Runs the recorder process.
pub fn serve(mut input: impl Read, path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => file.write_all(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A pen that writes the lines of one process. Its threads share it: a line is one write, and a pipe doesn't mix
/// writes.
#[derive(Debug)]
pub struct Pen {
    process: String,
    file: std::fs::File,
    next: AtomicU64,
}

impl Pen {
    /// Makes a pen for the process of this name. The name must not have been used before.
    pub fn new(process: &str, pipe: OwnedFd) -> Self {
        Self { process: process.to_owned(), file: pipe.into(), next: AtomicU64::new(1) }
    }

    /// Writes a line. Adds the time, the name and the thread.
    pub fn write(&self, worker: u32, line: Line<'_>) {
        let t = if line.t == 0 { now() } else { line.t };
        let text = Line { t, p: self.process.as_str().into(), w: worker, ..line }.text();
        // If the recorder is gone, the reader of the file notices it.
        let _ = (&self.file).write_all(text.as_bytes());
    }

    /// Writes that a call is about to begin. Returns the number of the call.
    pub fn begin(&self, worker: u32, f: Verb, line: Line<'_>) -> u64 {
        let op = self.next.fetch_add(1, Ordering::Relaxed);
        self.write(worker, Line { op, f: Some(f), ph: Some(Phase::Inv), ..line });
        op
    }

    /// Writes the end of a call.
    pub fn end(&self, worker: u32, op: u64, f: Verb, ph: Phase, line: Line<'_>) {
        self.write(worker, Line { op, f: Some(f), ph: Some(ph), ..line });
    }
}
