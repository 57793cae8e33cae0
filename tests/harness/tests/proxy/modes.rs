//! What is done to all connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use dlock_harness::proxy::Direction::{ToClient, ToServer};
use dlock_harness::proxy::Mode;

use super::{Echo, connect, hear, is_reset, make, ms, say, silent, until};

#[test]
fn bytes_pass_and_are_counted() {
    let (echo, proxy) = make();
    let (a, b) = (connect(&proxy), connect(&proxy));
    for stream in [&a, &b] {
        say(stream, "hello");
        hear(stream, "hello");
    }
    assert_eq!(proxy.connections(), 2);
    let counts = proxy.counts();
    assert_eq!((counts.opened, counts.requests, counts.replies), (2, 2, 2));
    assert_eq!((counts.to_server, counts.to_client), (10, 10));
    drop(a);
    until(|| proxy.connections() == 1 && echo.got().contains('|'));
    say(&b, "still");
    hear(&b, "still");
}

#[test]
fn much_passes_both_ways() {
    let (_echo, proxy) = make();
    let stream = connect(&proxy);
    let much = vec![b'm'; 40 << 20];
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&much).unwrap());
        let mut back = vec![0; much.len()];
        (&stream).read_exact(&mut back).unwrap();
        assert!(back == much);
    });
    println!("40 MiB there and back: {:?}", begin.elapsed());
}

#[test]
fn an_end_passes_after_what_was_said_and_the_other_half_stays_open() {
    let (echo, proxy) = make();
    let stream = connect(&proxy);
    say(&stream, "last words");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    hear(&stream, "last words");
    assert_eq!((&stream).read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(echo.got(), "last words|");
    until(|| proxy.connections() == 0);
}

#[test]
fn dropped_bytes_are_silence() {
    let (echo, proxy) = make();
    let stream = connect(&proxy);
    proxy.set(ToServer, Mode::Drop);
    say(&stream, "lost");
    silent(&stream);
    proxy.set(ToServer, Mode::Pass);
    say(&stream, "came");
    hear(&stream, "came");
    assert_eq!(echo.got(), "came");
    proxy.set(ToClient, Mode::Drop);
    say(&stream, "reply lost");
    silent(&stream);
    assert_eq!(echo.got(), "camereply lost");
    drop(stream);
    until(|| echo.got().ends_with('|'));
}

#[test]
fn an_end_is_not_seen_while_bytes_are_dropped() {
    let (echo, proxy) = make();
    let stream = connect(&proxy);
    say(&stream, "x");
    hear(&stream, "x");
    proxy.both(Mode::Drop);
    drop(stream);
    until(|| proxy.connections() == 0);
    std::thread::sleep(ms(30));
    assert_eq!(echo.got(), "x");
    proxy.both(Mode::Pass);
    until(|| echo.got() == "x|");
}

#[test]
fn held_bytes_come_late_also_those_of_a_client_that_is_gone() {
    let (echo, proxy) = make();
    let stream = connect(&proxy);
    proxy.set(ToServer, Mode::Hold);
    say(&stream, "one");
    silent(&stream);
    say(&stream, "two");
    assert_eq!(echo.got(), "");
    proxy.set(ToServer, Mode::Pass);
    hear(&stream, "onetwo");
    proxy.set(ToServer, Mode::Hold);
    say(&stream, "three");
    drop(stream);
    until(|| proxy.connections() == 0);
    assert_eq!(echo.got(), "onetwo");
    proxy.set(ToServer, Mode::Pass);
    until(|| echo.got() == "onetwothree|");
}

#[test]
fn held_bytes_can_be_lost() {
    let (echo, proxy) = make();
    let stream = connect(&proxy);
    proxy.set(ToServer, Mode::Hold);
    say(&stream, "held");
    until(|| proxy.counts().to_server == 4);
    proxy.set(ToServer, Mode::Drop);
    proxy.set(ToServer, Mode::Pass);
    say(&stream, "next");
    hear(&stream, "next");
    assert_eq!(echo.got(), "next");
}

#[test]
fn delayed_chunks_come_in_order_and_all_so_much_later() {
    let (_echo, proxy) = make();
    let stream = connect(&proxy);
    proxy.set(ToClient, Mode::Delay(ms(200)));
    let begin = Instant::now();
    for digit in "0123456789".chars() {
        say(&stream, &digit.to_string());
        std::thread::sleep(ms(2));
    }
    let said = begin.elapsed();
    hear(&stream, "0");
    assert!(begin.elapsed() >= ms(200));
    // A shorter delay overtakes nothing.
    proxy.set(ToClient, Mode::Pass);
    say(&stream, "x");
    hear(&stream, "123456789x");
    println!("ten chunks said within {said:?}, each 200 ms late: all there after {:?}", begin.elapsed());
}

#[test]
fn fragments_are_small() {
    let (_echo, proxy) = make();
    let stream = connect(&proxy);
    proxy.set(ToClient, Mode::Fragment(3));
    say(&stream, "0123456789");
    let (mut buffer, mut parts, mut got) = ([0; 100], 0, String::new());
    while got.len() < 10 {
        let length = (&stream).read(&mut buffer).unwrap();
        got.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        parts += 1;
    }
    assert_eq!(got, "0123456789");
    println!("10 bytes in fragments of 3 were read in {parts} parts");
}

#[test]
fn a_cut_resets_both_sides() {
    let (echo, proxy) = make();
    let (a, b) = (connect(&proxy), connect(&proxy));
    say(&a, "x");
    hear(&a, "x");
    until(|| proxy.connections() == 2);
    assert_eq!(proxy.cut(), 2);
    is_reset(&a);
    is_reset(&b);
    until(|| echo.got() == "x||" || echo.got() == "|x|");
    let c = connect(&proxy);
    say(&c, "y");
    hear(&c, "y");
}

#[test]
fn refused_connections_fail_at_once_and_the_port_stays_ours() {
    let (_echo, proxy) = make();
    let stream = connect(&proxy);
    say(&stream, "x");
    hear(&stream, "x");
    for _ in 0..20 {
        proxy.refuse(true);
        proxy.refuse(true);
        let refused = TcpStream::connect(proxy.addr());
        assert!(refused.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "{refused:?}");
        say(&stream, "y");
        hear(&stream, "y");
        proxy.refuse(false);
        let again = connect(&proxy);
        say(&again, "z");
        hear(&again, "z");
    }
}

#[test]
fn a_black_hole_accepts_and_says_nothing() {
    let (echo, proxy) = make();
    let before = connect(&proxy);
    say(&before, "x");
    hear(&before, "x");
    proxy.blackhole(true);
    let lost = connect(&proxy);
    say(&lost, "lost");
    silent(&lost);
    say(&before, "y");
    hear(&before, "y");
    proxy.blackhole(false);
    silent(&lost);
    let after = connect(&proxy);
    say(&after, "z");
    hear(&after, "z");
    assert_eq!(echo.got(), "xyz");
    drop(lost);
    until(|| proxy.connections() == 2);
}

#[test]
fn the_upstream_can_change_and_be_away() {
    let (_echo, proxy) = make();
    let other = Echo::start(|_| b"other".to_vec());
    proxy.set_upstream(other.addr);
    let stream = connect(&proxy);
    say(&stream, "x");
    hear(&stream, "other");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    proxy.set_upstream(nobody);
    is_reset(&connect(&proxy));
}

#[test]
fn a_dropped_proxy_leaves_nothing() {
    let (echo, proxy) = make();
    let (addr, stream) = (proxy.addr(), connect(&proxy));
    proxy.both(Mode::Hold);
    say(&stream, "x");
    drop(proxy);
    assert!(!(&stream).read(&mut [0; 10]).is_ok_and(|length| length > 0));
    assert!(TcpStream::connect(addr).is_err());
    assert_eq!(echo.got().trim_end_matches('|'), "");
}
