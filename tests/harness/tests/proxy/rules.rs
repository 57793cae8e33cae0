//! What is done to some requests and replies.

use std::io::{ErrorKind, Read};
use std::time::Instant;

use dlock_harness::proxy::Direction::{ToClient, ToServer};
use dlock_harness::proxy::{Action, Mode, Proxy};

use super::{Echo, LONG, connect, hear, is_reset, make, ms, say, silent, until};

#[test]
fn a_rule_counts_each_occurrence_also_over_a_border() {
    let (_echo, proxy) = make();
    let rule = proxy.rule(ToServer, "abab", .., Action::Signal);
    let second = proxy.rule(ToServer, "abab", 2..=2, Action::Signal);
    let back = proxy.rule(ToClient, "abab", .., Action::Signal);
    let stream = connect(&proxy);
    for part in ["xa", "b", "ab", "ab", "abx", "ababab"] {
        say(&stream, part);
        hear(&stream, part);
    }
    // Not overlapping: x[abab][abab]x[abab]ab.
    assert!(rule.wait_fired(3, LONG) && back.wait_fired(3, LONG) && second.wait_fired(1, LONG));
    assert_eq!((rule.fired(), back.fired(), second.fired()), (3, 3, 1));
    assert!(!rule.wait_fired(4, ms(10)));
    proxy.clear_rules();
    say(&stream, "abab");
    hear(&stream, "abab");
    assert_eq!(rule.fired(), 3);
}

#[test]
fn cut_before_the_request() {
    let (echo, proxy) = make();
    let rule = proxy.rule(ToServer, "SET", 2..=2, Action::CutBefore);
    let stream = connect(&proxy);
    say(&stream, "SET 1");
    hear(&stream, "SET 1");
    say(&stream, "SET 2");
    is_reset(&stream);
    assert!(rule.wait_fired(1, LONG));
    until(|| echo.got() == "SET 1|");
    let again = connect(&proxy);
    say(&again, "SET 3");
    hear(&again, "SET 3");
}

#[test]
fn cut_before_a_reply() {
    let (echo, proxy) = make();
    let rule = proxy.rule(ToClient, "two", .., Action::CutBefore);
    let stream = connect(&proxy);
    say(&stream, "one");
    hear(&stream, "one");
    say(&stream, "two");
    is_reset(&stream);
    assert_eq!((rule.fired(), echo.got().trim_end_matches('|')), (1, "onetwo"));
}

#[test]
fn applied_and_the_reply_lost() {
    let (echo, proxy) = make();
    let rule = proxy.rule(ToServer, "SET", .., Action::CutAfterForward);
    let stream = connect(&proxy);
    say(&stream, "SET");
    is_reset(&stream);
    assert!(rule.wait_fired(1, LONG));
    until(|| echo.got() == "SET|");
}

#[test]
fn applied_and_then_silence() {
    let (echo, proxy) = make();
    let rule = proxy.rule(ToServer, "SET", ..=1, Action::DropReplyAfterForward);
    let (stream, other) = (connect(&proxy), connect(&proxy));
    say(&stream, "SET");
    assert!(rule.wait_fired(1, LONG));
    say(&stream, "more");
    silent(&stream);
    assert_eq!(echo.got(), "SETmore");
    say(&other, "SET");
    hear(&other, "SET");
    drop(stream);
    until(|| echo.got().contains('|') && proxy.connections() == 1);
}

#[test]
fn a_held_request_arrives_after_its_client_came_back() {
    for reset in [false, true] {
        let (echo, proxy) = make();
        let rule = proxy.rule(ToServer, "SET", 1..=1, Action::HoldRequest);
        let stream = connect(&proxy);
        say(&stream, "GET");
        hear(&stream, "GET");
        say(&stream, "SET");
        assert!(rule.wait_fired(1, LONG));
        say(&stream, "and more");
        until(|| proxy.counts().to_server == 14);
        if reset {
            rustix::net::connect_unspec(&stream).unwrap();
        }
        drop(stream);
        until(|| proxy.connections() == 0);
        let again = connect(&proxy);
        say(&again, "[SET again]");
        hear(&again, "[SET again]");
        assert_eq!(echo.got(), "GET[SET again]");
        proxy.release_held();
        until(|| echo.got() == "GET[SET again]SETand more|");
        assert_eq!(rule.fired(), 1);
    }
}

#[test]
fn a_delayed_reply() {
    let (_echo, proxy) = make();
    let rule = proxy.rule(ToServer, "slow", .., Action::DelayReply(ms(150)));
    let stream = connect(&proxy);
    let begin = Instant::now();
    say(&stream, "quick");
    hear(&stream, "quick");
    say(&stream, "slow");
    assert!(rule.wait_fired(1, LONG));
    say(&stream, "quick");
    hear(&stream, "slowquick");
    assert!(begin.elapsed() >= ms(150));
}

fn pong(asked: &[u8]) -> Vec<u8> {
    // A push in front of each answer, and the answers of one read in one write.
    let commands = asked.iter().filter(|byte| **byte == b'*').count();
    b">2\r\n+message\r\n+hello\r\n+PONG\r\n".repeat(commands)
}

const PING: &str = "*1\r\n$4\r\nPING\r\n";
const PUSH: &str = ">2\r\n+message\r\n+hello\r\n";

#[test]
fn in_redis_protocol_a_rule_knows_its_reply() {
    let server = Echo::start(pong);
    let proxy = Proxy::new(server.addr).unwrap();
    let rule = proxy.rule(ToServer, "LAST", .., Action::CutAfterForward);
    let held = proxy.rule(ToClient, "PONG", 2..=2, Action::Signal);
    let stream = connect(&proxy);
    proxy.set(ToServer, Mode::Hold);
    // The border of what is written is inside of the third request.
    say(&stream, &format!("{PING}{PING}*1\r\n$4\r\nLA"));
    say(&stream, "ST\r\n");
    until(|| proxy.counts().requests == 3);
    proxy.set(ToServer, Mode::Pass);
    let mut heard = Vec::new();
    let end = (&stream).read_to_end(&mut heard);
    assert!(end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert!(rule.wait_fired(1, LONG) && held.wait_fired(1, LONG));
    assert_eq!(proxy.counts().replies, 3);
    let whole = format!("{PUSH}+PONG\r\n").repeat(2) + PUSH;
    // A reset may overtake what is still unread, never the other way round.
    assert!(whole.starts_with(&*String::from_utf8_lossy(&heard)));
}

#[test]
fn in_redis_protocol_only_the_reply_is_swallowed() {
    let server = Echo::start(pong);
    let proxy = Proxy::new(server.addr).unwrap();
    let rule = proxy.rule(ToServer, "LAST", .., Action::DropReplyAfterForward);
    let stream = connect(&proxy);
    say(&stream, &format!("{PING}*1\r\n$4\r\nLAST\r\n"));
    hear(&stream, &format!("{PUSH}+PONG\r\n{PUSH}"));
    assert!(rule.wait_fired(1, LONG));
    silent(&stream);
}

#[test]
fn what_looks_like_redis_and_is_none_passes_as_it_is() {
    let (_echo, proxy) = make();
    let stream = connect(&proxy);
    for part in [PING, "*x\r\n", "anything", "*1"] {
        say(&stream, part);
        hear(&stream, part);
    }
}
