//! One interpreter process. It reads a step from its standard input and writes the outcome to its standard output.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A language: its name, and the command that starts its interpreter.
#[derive(Clone, Debug)]
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) command: Vec<PathBuf>,
}

/// An interpreter process.
pub(crate) struct Actor {
    /// The process. `None` for a child that another interpreter has forked.
    child: Option<Child>,
    pub(crate) pid: Pid,
    input: Option<Box<dyn Write + Send>>,
    lines: Receiver<String>,
    /// The words for what the interpreter can do, as it reports them.
    pub(crate) able: Vec<String>,
}

impl Actor {
    /// Starts an interpreter. Of the variables `DLOCK_*` its environment has only the given ones.
    pub(crate) fn start(
        language: &Language,
        folder: &Path,
        env: &[(String, String)],
        log: &Path,
    ) -> Result<Self, String> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(|error| error.to_string())?;
        let mut command = Command::new(&language.command[0]);
        command.args(&language.command[1..]).current_dir(folder);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DLOCK_") {
                command.env_remove(name);
            }
        }
        command.envs(env.iter().cloned()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", language.command[0].display()))?;
        let pid = Pid::from_child(&child);
        let input = child.stdin.take().map(|input| Box::new(input) as _);
        let lines = listen(child.stdout.take().ok_or("no output")?);
        let mut actor = Self { child: Some(child), pid, input, lines, able: Vec::new() };
        let hello = actor.answer(Duration::from_secs(30))?;
        let able = hello.strip_prefix("able").ok_or(format!("it began with {hello:?}"))?;
        actor.able = able.split_whitespace().map(str::to_owned).collect();
        Ok(actor)
    }

    /// Forks this interpreter. The child talks to the harness by a socket.
    pub(crate) fn fork(&mut self, name: &str, folder: &Path, limit: Duration) -> Result<Self, String> {
        let path = folder.join(format!("{name}.sock"));
        let listener = UnixListener::bind(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let said = self.ask(&format!("{name} fork {}", path.display()), limit)?;
        let number = said.parse().map_err(|_| format!("fork gave {said:?}"))?;
        let pid = Pid::from_raw(number).ok_or(format!("fork gave {said:?}"))?;
        let (tell, told) = channel();
        std::thread::spawn(move || tell.send(listener.accept()));
        let accepted = told.recv_timeout(limit).map_err(|_| "the child of the fork didn't connect".to_owned())?;
        let input: UnixStream = accepted.map_err(|error| error.to_string())?.0;
        let output = input.try_clone().map_err(|error| error.to_string())?;
        let lines = listen(output);
        let child = Self { child: None, pid, input: Some(Box::new(input)), lines, able: self.able.clone() };
        child.answer(limit).map(|_| child)
    }

    /// Sends a step to the interpreter and returns the outcome.
    pub(crate) fn ask(&mut self, step: &str, limit: Duration) -> Result<String, String> {
        let input = self.input.as_mut().ok_or("the process has ended")?;
        writeln!(input, "{step}").and_then(|()| input.flush()).map_err(|_| "the process is gone".to_owned())?;
        self.answer(limit)
    }

    fn answer(&self, limit: Duration) -> Result<String, String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {limit:?}"),
            RecvTimeoutError::Disconnected => "the process is gone".to_owned(),
        })
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        if self.input.is_none() {
            return Err("the process has ended".to_owned());
        }
        kill_process(self.pid, signal).map_err(|errno| errno.to_string())
    }

    /// Kills the interpreter and waits until it is dead.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL)?;
        self.input = None;
        self.gone(Duration::from_secs(5))
    }

    /// Ends the interpreter's input, which asks it for an orderly end. Waits until it has ended.
    pub(crate) fn exit(&mut self, limit: Duration) -> Result<(), String> {
        if self.child.is_none() {
            // The word `exit` ends the child, because our reading thread keeps its half of the socket open.
            let _ = self.ask("exit", limit);
        }
        self.input = None;
        self.gone(limit)?;
        match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) if !status.success() => Err(format!("it ended with {status}")),
            _ => Ok(()),
        }
    }

    fn gone(&mut self, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let gone = match &mut self.child {
                Some(child) => child.try_wait().map_err(|error| error.to_string())?.is_some(),
                None => matches!(self.lines.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)),
            };
            if gone {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("it didn't end within {limit:?}"));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        match &mut self.child {
            Some(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            // An interpreter that has ended isn't killed: its number may belong to another process.
            None if self.input.is_some() => {
                let _ = self.signal(Signal::KILL);
            }
            None => {}
        }
    }
}

fn listen(output: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { return };
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}
