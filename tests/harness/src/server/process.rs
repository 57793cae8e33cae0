//! A server's process, folder and port. The process ends with the process that started it, however that one ends.

#![allow(unsafe_code, reason = "what a child does before exec has no safe form")]

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process, waitid,
};
use tempfile::TempDir;

/// A process with a group of its own. When it is dropped, the whole group is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
}

type Order = (Command, Sender<io::Result<Child>>);

impl Process {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        {
            let parent = rustix::process::getpid();
            let bind = move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before that call.
                if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            };
            // SAFETY: system calls only.
            unsafe { command.pre_exec(bind) };
        }
        let (answer, answered) = channel();
        let sent = starter().send((command, answer));
        let child = sent.ok().and_then(|()| answered.recv().ok()).ok_or(io::ErrorKind::BrokenPipe)??;
        Ok(Self { pid: Pid::from_child(&child), child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. `STOP` returns when the whole process has stopped, because threads stop one after the other.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(self.pid, signal)?;
        if signal == Signal::STOP {
            waitid(WaitId::Pid(self.pid), WaitIdOptions::STOPPED)?;
        }
        Ok(())
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Returns the inbox of a thread that starts processes and never ends. The kernel ends a child with the *thread* that
/// started it, and the threads of tests are short.
fn starter() -> &'static Sender<Order> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (orders, ordered) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in ordered {
                // The sender waits for the answer.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    })
}

const PREFIX: &str = "dlock-test-";

/// Makes a folder in memory, if the machine has such a place.
pub(crate) fn folder() -> io::Result<TempDir> {
    static SWEPT: Once = Once::new();
    let make =
        |root: &Path| tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir_in(root);
    let roots = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    SWEPT.call_once(|| roots.iter().for_each(|root| sweep(root)));
    make(&roots[0]).or_else(|_| make(&roots[1]))
}

/// Removes the folders of processes that were killed.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        if let Some(pid) = owner.and_then(Pid::from_raw)
            && test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns a free port below those that the system gives out, and never the same one twice. So the port stays free for a
/// server that is away for a while, or that starts later.
pub(crate) fn port() -> io::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let ports = (0..10_000).map(|n| 20_000 + (seed.wrapping_add(n) % 10_000) as u16);
    let mut free = ports.filter(|port| given.insert(*port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.next().ok_or(io::ErrorKind::AddrInUse.into())
}
