//! The workers: each is a process in a slot, with a recorder of its own. Another process follows one that was killed.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use dlock_harness::history::record::Recorder;
use dlock_harness::history::{Line, Phase, now};
use rustix::process::{Pid, Signal, kill_process};

use crate::worker::Job;

/// The time in which workers have to end their work.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Fleet {
    pub(crate) slots: Vec<Slot>,
    folder: PathBuf,
    faults: File,
    mutant: Option<String>,
}

pub(crate) struct Slot {
    /// The words of the slot's program. The job follows.
    command: Vec<PathBuf>,
    language: &'static str,
    number: usize,
    job: Job,
    lives: u64,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// The input of the worker. Its end makes the worker stop.
    input: Option<ChildStdin>,
    recorder: Recorder,
}

impl Fleet {
    pub(crate) fn new(folder: &Path, mutant: Option<&str>) -> std::io::Result<Self> {
        let faults = File::create(folder.join("faults.jsonl"))?;
        Ok(Self { slots: Vec::new(), folder: folder.to_owned(), faults, mutant: mutant.map(str::to_owned) })
    }

    pub(crate) fn add(&mut self, language: &'static str, command: Vec<PathBuf>, job: Job) {
        let number = self.slots.len();
        self.slots.push(Slot { command, language, number, job, lives: 0, running: None });
    }

    /// Starts the next process in a slot.
    pub(crate) fn start(&mut self, at: usize) -> Result<(), String> {
        let slot = &mut self.slots[at];
        slot.lives += 1;
        slot.job.name = format!("{}-{}.{}", slot.language, slot.number, slot.lives);
        slot.job.seed = slot.job.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(slot.lives);
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let path = self.folder.join(format!("{}.jsonl", slot.job.name));
        let (recorder, pipe) = Recorder::start(&own, &path).map_err(|error| format!("a recorder: {error}"))?;
        let log = File::options().create(true).append(true).open(self.folder.join("stderr.txt"));
        let log = log.map_err(|error| error.to_string())?;
        let mut command = Command::new(&slot.command[0]);
        command.args(&slot.command[1..]).arg(serde_json::to_string(&slot.job).expect("numbers and texts"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DLOCK_")) {
            command.env_remove(name);
        }
        command.envs(self.mutant.iter().map(|name| ("DLOCK_MUTANT", name)));
        let child = command.stdin(Stdio::piped()).stdout(pipe).stderr(log).spawn();
        let mut child = child.map_err(|error| format!("{}: {error}", slot.command[0].display()))?;
        let input = child.stdin.take();
        slot.running = Some(Running { child, input, recorder });
        Ok(())
    }

    /// Returns the name of the process in a slot.
    pub(crate) fn name(&self, at: usize) -> String {
        self.slots[at].job.name.clone()
    }

    pub(crate) fn signal(&mut self, at: usize, signal: Signal) -> Result<(), String> {
        let running = self.slots[at].running.as_mut().ok_or("no process")?;
        // The number of a process that has ended may belong to another process.
        if let Ok(Some(status)) = running.child.try_wait() {
            return Err(format!("it ended with {status}"));
        }
        kill_process(Pid::from_child(&running.child), signal).map_err(|errno| errno.to_string())
    }

    /// Kills the process in a slot, and waits until it is dead and its last line is in its file.
    pub(crate) fn kill(&mut self, at: usize) -> Result<(), String> {
        self.signal(at, Signal::KILL)?;
        let mut running = self.slots[at].running.take().ok_or("no process")?;
        running.child.wait().map_err(|error| error.to_string())?;
        running.recorder.finish().map_err(|error| error.to_string())
    }

    /// Writes that a fault begins or ends now.
    pub(crate) fn note(&mut self, what: &str, target: &str, phase: Phase) {
        let line = Line { t: now(), nem: what.into(), target: target.into(), ph: Some(phase), ..Line::default() };
        let _ = self.faults.write_all(line.text().as_bytes());
    }

    /// Returns an error for a worker that has ended by itself, which none should.
    pub(crate) fn fallen(&mut self) -> Option<String> {
        self.slots.iter_mut().find_map(|slot| {
            let status = slot.running.as_mut()?.child.try_wait().ok()??;
            Some(format!("{} ended with {status}", slot.job.name))
        })
    }

    /// Stops all workers and waits for them. Returns an error for each one that didn't end well.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
            running.input = None;
        }
        let end = Instant::now() + PATIENCE;
        let mut trouble = Vec::new();
        for slot in &mut self.slots {
            let Some(mut running) = slot.running.take() else { continue };
            let status = loop {
                match running.child.try_wait() {
                    Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                    other => break other.ok().flatten(),
                }
            };
            match status {
                Some(status) if status.success() => {}
                Some(status) => trouble.push(format!("{} ended with {status}", slot.job.name)),
                None => {
                    trouble.push(format!("{} didn't end within {PATIENCE:?}", slot.job.name));
                    let _ = running.child.kill();
                    let _ = running.child.wait();
                }
            }
            let _ = running.recorder.finish();
        }
        trouble
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for running in self.slots.iter_mut().filter_map(|slot| slot.running.as_mut()) {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
