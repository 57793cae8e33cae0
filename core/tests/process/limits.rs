//! No descriptor or no thread left: an error that says so, again and again, and nothing left of the tries.

use std::fs::File;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};

use dlock::{Client, Error, Kind, event};

use crate::shim::NO_THREADS;
use crate::{alone, ms};

fn count(of: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count()
}

/// Takes all descriptors that are left.
fn all_descriptors() -> Vec<File> {
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// What the first calls of a process say, in every way to make one.
fn first_calls(memory: &Client, server: &Client) -> Vec<Error> {
    let short = memory.lock("short").ttl(ms(100)).auto_renew(false);
    let (tell, told) = channel();
    server.ping().on_done(move |result| tell.send(result).unwrap());
    let mut awaited = pin!(server.lock("k").acquire());
    let Poll::Ready(awaited) = awaited.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it can't have begun");
    };
    vec![
        short.acquire().wait().unwrap_err(),
        short.try_acquire().wait().unwrap_err(),
        server.ping().wait().unwrap_err(),
        server.lock("k").try_acquire().wait().unwrap_err(),
        server.ping().wait_for(ms(0)).unwrap().unwrap_err(),
        told.recv_timeout(ms(10_000)).unwrap().unwrap_err(),
        awaited.unwrap_err(),
    ]
}

fn are_temporary(errors: &[Error], limit: &str) {
    for error in errors {
        assert_eq!((error.kind(), error.is_temporary()), (Kind::Backend, true), "{error}");
        assert!(error.to_string().contains(limit), "{error}");
    }
}

fn clients() -> (Client, Client) {
    (Client::connect("memory://limits").unwrap(), Client::connect("redis://127.0.0.1:1").unwrap())
}

fn works(memory: &Client) {
    let lease = memory.lock("short").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    assert!(lease.lost().wait().unwrap());
}

#[test]
fn without_descriptors_nothing_is_left_of_a_try() {
    if !alone("limits::without_descriptors_nothing_is_left_of_a_try") {
        return;
    }
    let (memory, server) = clients();
    let before = (count("fd"), count("task"));
    let all = all_descriptors();
    for _ in 0..20 {
        are_temporary(&first_calls(&memory, &server), "RLIMIT_NOFILE is 64");
    }
    drop(all);
    assert_eq!((count("fd"), count("task")), before);
    works(&memory);
}

#[test]
fn without_threads_nothing_is_left_of_a_try() {
    if !alone("limits::without_threads_nothing_is_left_of_a_try") {
        return;
    }
    let (memory, server) = clients();
    let before = (count("fd"), count("task"));
    NO_THREADS.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        are_temporary(&first_calls(&memory, &server), "RLIMIT_NPROC is ");
        are_temporary(&[event::subscribe(drop).unwrap_err()], "RLIMIT_NPROC is ");
    }
    NO_THREADS.store(false, Ordering::SeqCst);
    assert_eq!((count("fd"), count("task")), before);
    works(&memory);
}

/// With the runtime there, and no thread for anything else.
#[test]
fn a_callback_waits_for_a_thread() {
    if !alone("limits::a_callback_waits_for_a_thread") {
        return;
    }
    works(&clients().0);
    NO_THREADS.store(true, Ordering::SeqCst);
    let (tell, told) = channel();
    let again = tell.clone();
    dlock::callbacks::pool(move || tell.send(1).unwrap());
    let name = Client::connect("redis://localhost:1").unwrap();
    are_temporary(&[name.ping().wait().unwrap_err()], "RLIMIT_NPROC is ");
    assert!(told.try_recv().is_err());
    NO_THREADS.store(false, Ordering::SeqCst);
    assert_eq!(told.recv_timeout(ms(10_000)), Ok(1));
    dlock::callbacks::pool(move || again.send(2).unwrap());
    assert_eq!(told.recv_timeout(ms(10_000)), Ok(2));
}
