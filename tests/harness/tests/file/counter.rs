//! The fences of a key whatever becomes of the file that they are counted by.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use dlock::Kind;
use dlock_harness::server::Clock;

use crate::common::{LONG, Other, acquired, client, folder, pair};

/// Every process in turn, two rounds: each fence is greater than all before.
fn rising(last: &mut u64, others: &mut [Other], when: &str) {
    for round in 0..2 {
        for (n, other) in others.iter_mut().enumerate() {
            let fence = other.pair("k");
            assert!(fence > *last, "{when}: process {n} was granted fence {fence} after {last}, in round {round}");
            *last = fence;
        }
    }
}

fn fence(dir: &Path) -> std::path::PathBuf {
    dir.join(".fence")
}

/// What a process has read of the counter is good for a moment.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(5));
}

/// What is done to the files, and a process that begins right after it beside those that have gone on.
fn changed(how: &str, change: impl Fn(&Path)) {
    let folder = folder();
    let dir = folder.path().join("locks");
    let mut others: Vec<_> = (0..2).map(|_| Other::start(&dir, |_| {})).collect();
    let mut last = 0;
    rising(&mut last, &mut others, "at first");
    for n in 1..=3 {
        change(&dir);
        // The new process is the first to see what was done.
        others.insert(0, Other::start(&dir, |_| {}));
        rising(&mut last, &mut others, &format!("{how}, {n} times"));
    }
}

#[test]
fn a_removed_counter_sets_no_fence_back() {
    changed("the counter was removed", |dir| fs::remove_file(fence(dir)).unwrap());
}

#[test]
fn a_removed_directory_sets_no_fence_back() {
    changed("the directory was removed", |dir| fs::remove_dir_all(dir).unwrap());
}

#[test]
fn a_directory_that_was_moved_away_sets_no_fence_back() {
    changed("the directory was moved away", |dir| {
        let old = tempfile::TempDir::new_in(dir.parent().unwrap()).unwrap().keep();
        fs::rename(dir, old.join("old")).unwrap();
    });
}

#[test]
fn a_truncated_counter_sets_no_fence_back() {
    changed("the counter was truncated", |dir| {
        OpenOptions::new().write(true).open(fence(dir)).unwrap().set_len(0).unwrap();
    });
}

#[test]
fn an_overwritten_counter_sets_no_fence_back() {
    changed("the counter was overwritten", |dir| fs::write(fence(dir), [0xff; 64]).unwrap());
}

#[test]
fn a_holder_of_a_removed_directory_does_not_exclude_and_is_told() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let mut other = Other::start(&dir, |_| {});
    let held: u64 = other.ask("hold k").parse().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    let next = pair(&client(&dir), "k");
    assert!(next > held, "the next holder's fence is {next} after {held}");
    a_moment();
    assert_eq!(other.ask("free"), "Lost");
    assert!(other.pair("k") > next);
}

/// A process that has granted by a clock that was ahead, and has to make the counter anew.
#[test]
fn a_clock_that_is_set_back_sets_no_fence_back() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let clock = Clock::new().unwrap();
    clock.step(Duration::from_secs(3600), true).unwrap();
    let mut other = Other::start(&dir, |line| clock.put(line));
    let mut last = other.pair("k");
    // What is there already doesn't depend on the clock.
    clock.step(Duration::from_secs(7200), false).unwrap();
    let mut others = vec![other, Other::start(&dir, |_| {})];
    rising(&mut last, &mut others, "the clock was set back");
    for _ in 0..2 {
        fs::remove_file(fence(&dir)).unwrap();
        a_moment();
        rising(&mut last, &mut others, "the clock was set back and the counter removed");
    }
}

/// The counter is made anew by a process whose clock is ahead; the one that has gone on must not go on below it.
#[test]
fn a_counter_that_another_has_made_anew_is_seen() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let mut other = Other::start(&dir, |_| {});
    let mut last = other.pair("k");
    fs::remove_file(fence(&dir)).unwrap();
    let clock = Clock::new().unwrap();
    clock.step(Duration::from_secs(3600), true).unwrap();
    let mut others = [Other::start(&dir, |line| clock.put(line)), other];
    rising(&mut last, &mut others, "the counter was made anew");
}

#[test]
fn a_counter_of_an_earlier_boot_is_gone_on_from() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let clock = Clock::new().unwrap();
    clock.step(Duration::from_secs(3600), true).unwrap();
    let before = Other::start(&dir, |line| clock.put(line)).pair("k");
    // Another boot, with the clock an hour back: what names the boot stands behind the first 8 bytes. Unlike what was
    // damaged it is believed, so its sum has to be right as well.
    let mut bytes = fs::read(fence(&dir)).unwrap();
    bytes[8] ^= 1;
    let sum = bytes[..48]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    bytes[48..56].copy_from_slice(&sum.to_le_bytes());
    fs::write(fence(&dir), bytes).unwrap();
    let after = Other::start(&dir, |_| {}).pair("k");
    assert!(after > before, "{after} after {before}");
}

/// Cut off at any length while somebody holds, waits, locks and gives back: errors at the most, and no signal.
#[test]
fn a_counter_that_is_cut_off_all_the_time_breaks_no_process() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let mut others: Vec<_> = (0..3).map(|_| Other::start(&dir, |_| {})).collect();
    let mut last = 0;
    rising(&mut last, &mut others, "at first");
    let end = std::time::Instant::now() + Duration::from_millis(300);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while std::time::Instant::now() < end {
                let file = OpenOptions::new().write(true).open(fence(&dir)).unwrap();
                file.set_len(fastrand::u64(0..64)).unwrap();
                std::thread::sleep(Duration::from_micros(fastrand::u64(0..2000)));
            }
        });
        for other in &mut others {
            scope.spawn(move || {
                while std::time::Instant::now() < end {
                    other.pair("k");
                }
            });
        }
    });
    rising(&mut last, &mut others, "afterwards");
}

#[test]
fn what_is_no_file_in_the_place_of_the_counter_is_an_error_and_then_is_not() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let client = client(&dir);
    let held = acquired(&client, "other");
    let before = pair(&client, "k");
    fs::remove_file(fence(&dir)).unwrap();
    fs::create_dir(fence(&dir)).unwrap();
    a_moment();
    let error = client.lock("k").try_acquire().wait().unwrap_err();
    assert_eq!(error.kind(), Kind::Backend, "{error}");
    assert!(error.to_string().contains(".fence"), "{error}");
    fs::remove_dir(fence(&dir)).unwrap();
    assert!(pair(&client, "k") > before);
    assert!(held.is_held());
}

/// Whoever cuts it off faster than it can be agreed on keeps nobody for ever.
#[test]
fn a_counter_that_never_rests_is_an_answer_in_time() {
    let folder = folder();
    let dir = folder.path().join("locks");
    let client = client(&dir);
    let before = pair(&client, "k");
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                OpenOptions::new().write(true).open(fence(&dir)).unwrap().set_len(0).unwrap();
            }
        });
        let begun = std::time::Instant::now();
        for _ in 0..5 {
            a_moment();
            match client.lock("k").try_acquire().wait() {
                Ok(lease) => assert!(lease.unwrap().fence().unwrap() > before),
                Err(error) => assert_eq!((error.kind(), error.is_temporary()), (Kind::Backend, true), "{error}"),
            }
        }
        let took = begun.elapsed();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(took < LONG, "{took:?}");
    });
    assert!(pair(&client, "k") > before);
}

/// Somebody else's lock on the counter keeps nobody waiting for ever.
#[test]
fn a_locked_counter_is_an_error_that_passes() {
    let folder = folder();
    let dir = folder.path().join("locks");
    fs::create_dir(&dir).unwrap();
    let file = fs::File::create(fence(&dir)).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let client = client(&dir);
    let error = client.lock("k").try_acquire().wait().unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (Kind::Backend, true), "{error}");
    drop(file);
    assert!(client.lock("k").wait(LONG).acquire().wait().is_ok());
}
