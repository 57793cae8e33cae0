//! What tests rely on of the servers they start.

#![allow(clippy::print_stdout, reason = "measurements")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use dlock_harness::backends::TestServer;
use dlock_harness::backends::redis::{Canned, Redis, RedisOptions};
use dlock_harness::proxy::{Action, Direction, Proxy};

fn start(options: &RedisOptions) -> Redis {
    Redis::start(options).unwrap()
}

fn plain() -> Redis {
    start(&RedisOptions::new())
}

fn runs(pid: u32) -> bool {
    // Of one that is dead and whose parent doesn't know it yet it is empty.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn it_starts_and_leaves_nothing() {
    let begin = Instant::now();
    let redis = plain();
    println!("started within {:?}", begin.elapsed());
    assert_eq!(redis.get::<String>(&["SET", "k", "v"]), "OK");
    redis.command(&["HSET", "hash", "a", "1"]);
    assert_eq!(redis.keys("*"), ["hash", "k"]);
    assert_eq!(redis.keys("h*"), ["hash"]);
    assert_eq!(redis.info("persistence", "aof_enabled").as_deref(), Some("0"));
    assert_eq!(redis.info("persistence", "nothing"), None);
    let (pid, folder) = (redis.pid().unwrap(), redis.folder().to_owned());
    assert!(folder.exists());
    drop(redis);
    assert!(!folder.exists() && !runs(pid));
}

#[test]
fn it_outlives_the_thread_that_started_it() {
    let redis = std::thread::spawn(plain).join().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(redis.get::<String>(&["PING"]), "PONG");
}

const INSIDE: &str = "DLOCK_TEST_SERVER";

#[test]
#[cfg(target_os = "linux")]
fn it_dies_with_a_process_that_is_killed() {
    let test = "it_dies_with_a_process_that_is_killed";
    if std::env::var_os(INSIDE).is_some() {
        let redis = plain();
        println!("\nserver {} {}", redis.pid().unwrap(), redis.folder().display());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("server ")).unwrap();
    let (pid, folder) = line.split_once(' ').unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while runs(pid.parse().unwrap()) {
        assert!(Instant::now() < end, "the server still runs");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The next process to start a server removes what was left.
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn paused_it_says_nothing_and_goes_on_afterwards() {
    let redis = plain();
    redis.command(&["SET", "k", "1"]);
    redis.pause();
    let mut stream = TcpStream::connect(redis.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    assert!(stream.read(&mut [0; 10]).is_err());
    redis.resume();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    assert_eq!(redis.get::<i64>(&["INCR", "k"]), 2);
    redis.pause();
}

#[test]
fn killed_and_started_again_it_has_what_it_has_written() {
    for kept in [false, true] {
        let options = RedisOptions::new();
        let mut redis = start(&if kept { options.appendonly("always") } else { options });
        redis.command(&["SET", "k", "v"]);
        let (port, pid) = (redis.port(), redis.pid().unwrap());
        redis.kill();
        assert!(redis.pid().is_none() && !runs(pid));
        assert!(TcpStream::connect(redis.addr()).is_err());
        assert!(redis.try_command::<String>(&["PING"]).is_err());
        redis.restart().unwrap();
        assert_eq!(redis.port(), port);
        assert_eq!(redis.get::<Option<String>>(&["GET", "k"]).is_some(), kept);
        redis.restart().unwrap();
        assert_eq!(redis.keys("*").len(), usize::from(kept));
    }
}

#[test]
fn it_asks_for_a_password() {
    let redis = start(&RedisOptions::new().password("se-cret"));
    assert_eq!(redis.get::<String>(&["PING"]), "PONG");
    assert!(redis.url().contains("se-cret"));
    let mut stream = TcpStream::connect(redis.addr()).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut said = [0; 7];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"-NOAUTH");
}

#[test]
fn it_listens_with_tls_and_on_a_socket_file() {
    let redis = start(&RedisOptions::new().tls().unix());
    let (port, _, certs) = redis.tls();
    let port = port.to_string();
    let cli = |line: &mut Command| {
        let run = line.arg("PING").output().unwrap();
        String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap()
    };
    for host in ["localhost", "127.0.0.1"] {
        for shown in [false, true] {
            let mut line = Command::new("redis-cli");
            line.args(["-h", host, "-p", &port, "--tls", "--cacert"]).arg(&certs.ca);
            if shown {
                line.arg("--cert").arg(&certs.client_cert).arg("--key").arg(&certs.client_key);
            }
            assert_eq!(cli(&mut line).trim(), "PONG");
        }
    }
    let stranger = start(&RedisOptions::new().tls());
    let mut line = Command::new("redis-cli");
    line.args(["-h", "127.0.0.1", "-p", &port, "--tls", "--cacert"]).arg(&stranger.tls().2.ca);
    assert!(cli(&mut line).contains("certificate"));
    assert_eq!(cli(Command::new("redis-cli").arg("-s").arg(redis.unix_path())).trim(), "PONG");
}

#[test]
fn arguments_come_last_and_a_failed_start_says_why() {
    let redis = start(&RedisOptions::new().args(&["--maxmemory", "3mb", "--loglevel", "notice"]));
    assert_eq!(redis.info("memory", "maxmemory").as_deref(), Some("3145728"));
    assert!(!redis.log().is_empty());
    let taken = Redis::start(&RedisOptions::new().port(redis.port())).unwrap_err();
    assert!(taken.contains("in use"), "{taken}");
    let wrong = Redis::start(&RedisOptions::new().args(&["--no-such-option", "1"])).unwrap_err();
    assert!(wrong.contains("ended with"), "{wrong}");
}

#[test]
#[cfg(target_os = "linux")]
fn its_wall_clock_can_be_set() {
    let mut redis = start(&RedisOptions::new().clock());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let is_ahead = |redis: &Redis, seconds: i64| {
        let (time, _): (i64, i64) = redis.get(&["TIME"]);
        let ahead = time - now() as i64;
        assert!((seconds - 5..=seconds + 5).contains(&ahead), "{ahead} s instead of {seconds}");
    };
    is_ahead(&redis, 0);
    redis.command(&["SET", "k", "v", "EX", "30"]);
    redis.step_clock(Duration::from_secs(60), true);
    assert_eq!(redis.get::<Option<String>>(&["GET", "k"]), None);
    is_ahead(&redis, 60);
    redis.command(&["SET", "k", "v", "EX", "30"]);
    redis.step_clock(Duration::from_secs(100), false);
    is_ahead(&redis, -40);
    assert!(redis.get::<i64>(&["TTL", "k"]) > 100);
    redis.restart().unwrap();
    is_ahead(&redis, -40);
}

#[test]
fn canned_replies_come_in_their_turn() {
    let redis = plain();
    let canned = Canned::start(redis.addr(), |words| match words[0].as_slice() {
        b"EVALSHA" => Some(b"-NOSCRIPT No matching script.\r\n".to_vec()),
        b"SET" if words[2] == b"big" => Some(b"-OOM command not allowed\r\n".to_vec()),
        _ => None,
    })
    .unwrap();
    let mut connection = redis::Client::open(canned.url()).unwrap().get_connection().unwrap();
    let mut ask = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).query::<String>(&mut connection);
    assert_eq!(ask(&["SET", "k", "small"]).unwrap(), "OK");
    assert_eq!(ask(&["SET", "k", "big"]).unwrap_err().code(), Some("OOM"));
    assert_eq!(ask(&["EVALSHA", "abc", "0"]).unwrap_err().code(), Some("NOSCRIPT"));
    assert_eq!(ask(&["GET", "k"]).unwrap(), "small");

    let mut stream = TcpStream::connect(canned.addr()).unwrap();
    let line = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        let each = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), each.collect::<String>())
    };
    let mut seen = String::new();
    let mut say = |texts: &[&str], last: &str| {
        stream.write_all(texts.iter().map(|text| line(text)).collect::<String>().as_bytes()).unwrap();
        seen.clear();
        while !seen.ends_with(last) {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "{seen:?}");
            seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        seen.clone()
    };
    let mixed =
        say(&["HELLO 3", "SUBSCRIBE c", "GET k", "SET k big", "GET k", "EVALSHA abc 0"], "No matching script.\r\n");
    let after = mixed.split_once("subscribe\r\n").unwrap().1;
    let replies = "$5\r\nsmall\r\n-OOM command not allowed\r\n$5\r\nsmall\r\n-NOSCRIPT No matching script.\r\n";
    assert!(after.ends_with(replies), "{after:?}");
    redis.command(&["PUBLISH", "c", "told"]);
    assert!(say(&[], "told\r\n").starts_with(">3\r\n"));
    drop(canned);
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    assert_eq!(redis.get::<String>(&["PING"]), "PONG");
}

#[test]
fn behind_the_proxy_a_request_can_be_done_and_its_reply_lost_or_be_late() {
    let server = plain();
    let proxy = Proxy::new(server.addr()).unwrap();
    let lost = proxy.rule(Direction::ToServer, "INCR", 1..=1, Action::CutAfterForward);
    let late = proxy.rule(Direction::ToServer, "INCR", 2..=2, Action::HoldRequest);
    let client = redis::Client::open(format!("redis://{}", proxy.addr())).unwrap();
    let incr = || {
        let mut connection = client.get_connection()?;
        connection.set_read_timeout(Some(Duration::from_millis(50)))?;
        redis::cmd("INCR").arg("n").query::<i64>(&mut connection)
    };
    assert!(incr().unwrap_err().is_connection_dropped());
    assert_eq!((lost.fired(), server.get::<i64>(&["GET", "n"])), (1, 1));
    assert!(incr().unwrap_err().is_timeout());
    assert_eq!((late.fired(), server.get::<i64>(&["GET", "n"])), (1, 1));
    assert_eq!(incr().unwrap(), 2);
    proxy.release_held();
    let end = Instant::now() + Duration::from_secs(10);
    while server.get::<i64>(&["GET", "n"]) < 3 {
        assert!(Instant::now() < end, "the late request didn't arrive");
    }
}
