//! Programs that lock the same name by etcd's own mutex.

use std::process::{Child, Command, Stdio};

use dlock_harness::backends::etcd::Etcd;

use crate::common::{LONG, acquired, begin, client, contenders, lock, ms, released, server, until, until_contenders};

/// An etcdctl that holds the lock until its input ends.
struct Foreign(Child);

impl Foreign {
    fn begin(server: &Etcd, name: &str) -> Self {
        let mut line: Command = server.ctl_line(&["lock", "--ttl", "5", name]);
        Self(line.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn etcdctl_and_dlock_exclude_one_another() {
    let server = server();
    let client = client(server.addr());
    let mut theirs = Foreign::begin(&server, "k");
    until_contenders(&server, "k", 1);
    assert!(client.lock("k").try_acquire().wait().unwrap().is_none());
    let ours = begin(&lock(&client, "k", ms(30_000)));
    until_contenders(&server, "k", 2);
    let mut next = Foreign::begin(&server, "k");
    until_contenders(&server, "k", 3);
    let holders = client.contenders("k").wait().unwrap();
    assert_eq!(holders.iter().map(|holder| holder.held).collect::<Vec<_>>(), [true, false, false]);
    assert!(holders[0].token.is_none() && holders[0].pid.is_none() && holders[1].pid == Some(std::process::id()));
    theirs.end();
    let ours = ours.join().unwrap().unwrap();
    let mine = contenders(&server, "k");
    std::thread::sleep(ms(300));
    assert_eq!(contenders(&server, "k"), mine, "etcdctl has come in beside us");
    released(&ours);
    until_contenders(&server, "k", 1);
    assert!(client.lock("k").try_acquire().wait().unwrap().is_none());
    next.end();
    until("etcdctl gave it back", LONG, || client.lock("k").try_acquire().wait().unwrap().is_some());
}

#[test]
fn a_lock_of_a_longer_name_is_another_lock() {
    let server = server();
    let (a, b) = (client(server.addr()), client(server.addr()));
    let deeper: Vec<_> = (0..70).map(|n| acquired(&a, &format!("k/{n}"))).collect();
    let held = b.lock("k").try_acquire().wait().unwrap().expect("only direct children count");
    assert!(a.lock("k").try_acquire().wait().unwrap().is_none());
    let waiter = begin(&lock(&a, "k", ms(30_000)));
    until("it waits", LONG, || a.contenders("k").wait().unwrap().len() == 2);
    released(&held);
    released(&waiter.join().unwrap().unwrap());
    deeper.iter().for_each(released);
}
