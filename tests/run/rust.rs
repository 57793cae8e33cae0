//! The Rust interpreter of the behaviour cases: reads steps, does them through the public API, prints their outcomes.
//! tests/README.md has the language.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use dlock::{Canceller, Client, Error, Lease, Lock, Mode, ReleaseOutcome, registry};

/// What this interpreter can do; not: say a duration that is negative or no number, or a key that isn't UTF-8.
const ABLE: &str = "able cancel fork zero nul modes";

/// Long enough for what is meant to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// A lease, and how often its callback was called.
struct Held(Lease, Arc<AtomicUsize>);

/// An acquire under way.
struct Call(Canceller, Receiver<dlock::Result<Lease>>);

#[derive(Default)]
struct Actor {
    url: String,
    clients: HashMap<String, Client>,
    leases: HashMap<String, Held>,
    calls: HashMap<String, Call>,
}

/// An outcome, or the error whose kind is the outcome.
type Outcome = Result<String, Error>;

/// Serves until the input ends.
pub(crate) fn main() -> ExitCode {
    let mut input: Box<dyn BufRead> = Box::new(BufReader::new(std::io::stdin()));
    let mut output: Box<dyn Write> = Box::new(std::io::stdout());
    let mut actor = Actor::default();
    let mut line = ABLE.to_owned();
    loop {
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            return ExitCode::FAILURE;
        }
        line.clear();
        if input.read_line(&mut line).is_err() || line.is_empty() || line.trim() == "exit" {
            // The rest is the library's, at the end of the process.
            return ExitCode::SUCCESS;
        }
        if let ["fork", path] = line.split_whitespace().skip(1).collect::<Vec<_>>()[..] {
            let child = fork();
            if child == 0 {
                let socket = UnixStream::connect(path).expect("the harness listens");
                input = Box::new(BufReader::new(socket.try_clone().expect("a descriptor")));
                output = Box::new(socket);
            }
            // Both answer, the child on its own channel.
            line = child.to_string();
        } else {
            line = actor.step(line.trim());
        }
    }
}

#[allow(unsafe_code)]
fn fork() -> i32 {
    // SAFETY: only this thread goes on in the child, and what it uses of the library is made for that.
    unsafe { libc::fork() }
}

/// `''` is nothing, `\xHH` a byte.
fn unescape(word: &str) -> String {
    let mut parts = word.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at(2);
        out.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
        out.extend_from_slice(rest.as_bytes());
    }
    if word == "''" { String::new() } else { String::from_utf8(out).expect("UTF-8, or the case needs bytes") }
}

fn time(text: &str) -> Duration {
    crate::case::duration(text).unwrap_or_else(|| panic!("{text:?} is no duration"))
}

fn yes(is: bool) -> Outcome {
    Ok(if is { "yes" } else { "no" }.to_owned())
}

fn ok<T>(_: T) -> Outcome {
    Ok("ok".to_owned())
}

/// Looks again and again until it is so, or the time is up.
fn within(limit: Duration, mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is() {
        if Instant::now() >= end {
            return is();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

impl Actor {
    fn step(&mut self, line: &str) -> String {
        let (step, name) = line.split_once(" -> ").unwrap_or((line, ""));
        let words: Vec<_> = step.split_whitespace().map(unescape).collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.outcome(&words, name).unwrap_or_else(|error| error.kind().name().to_owned())
    }

    fn outcome(&mut self, words: &[&str], name: &str) -> Outcome {
        match words {
            ["case", url] => {
                self.calls.clear();
                self.leases.clear();
                for (_, client) in self.clients.drain() {
                    client.close(PATIENCE).wait()?;
                }
                (*url).clone_into(&mut self.url);
                ok(())
            }
            [lease, verb, rest @ ..] if lease.starts_with('$') => self.lease(lease, verb, rest),
            [call, verb] if call.starts_with('%') => self.call(call, verb, name),
            [who, verb, rest @ ..] => self.client(who, verb, rest, name),
            _ => Ok(format!("no step: {words:?}")),
        }
    }

    fn client(&mut self, who: &str, verb: &str, rest: &[&str], name: &str) -> Outcome {
        let fresh = match (verb, rest) {
            ("connect", [url]) => Some(Client::connect(url)?),
            ("default", []) => Some(registry::client(None)?),
            ("service", [service]) => Some(registry::client(Some(service))?),
            ("config", [path]) => Some(registry::from_file(path.as_ref())?),
            _ if !self.clients.contains_key(who) => Some(Client::connect(&self.url)?),
            _ => None,
        };
        if let Some(client) = fresh {
            self.clients.insert(who.to_owned(), client);
        }
        let client = self.clients[who].clone();
        match (verb, rest) {
            ("connect" | "default" | "service" | "config", _) => ok(()),
            ("acquire", [key, options @ ..]) => {
                let lease = lock(&client, key, options).acquire().wait()?;
                self.got(lease, name)
            }
            ("try", [key, options @ ..]) => match lock(&client, key, options).try_acquire().wait()? {
                Some(lease) => self.got(lease, name),
                None => Ok("busy".to_owned()),
            },
            ("begin", [key, options @ ..]) => {
                let (tell, told) = channel();
                let canceller = lock(&client, key, options).acquire().on_done(move |result| drop(tell.send(result)));
                self.calls.insert(name.to_owned(), Call(canceller, told));
                Ok(name.to_owned())
            }
            ("with", [key, body, options @ ..]) => {
                let lease = lock(&client, key, options).acquire().wait()?;
                std::thread::sleep(time(body));
                Ok(ended(lease.release().wait()?))
            }
            ("rush", [key, many]) => Ok(rush(&client, key, number(many)).to_string()),
            ("crowd", [key, many]) => Ok(crowd(&client, key, number(many)).to_string()),
            ("contenders", [key, fields @ ..]) => contenders(&client, key, fields),
            ("break", [key]) => yes(client.break_lock(key).wait()?),
            ("ping", []) => client.ping().wait().and_then(ok),
            ("close", []) => client.close(PATIENCE).wait().and_then(ok),
            ("backend", []) => Ok(client.backend().to_owned()),
            ("register", [service]) => registry::register(service, &client).and_then(ok),
            ("capability", [word]) => capability(&client, word),
            _ => Ok(format!("no step of a client: {verb} {rest:?}")),
        }
    }

    fn got(&mut self, lease: Lease, name: &str) -> Outcome {
        if name.is_empty() {
            return Ok("lease".to_owned());
        }
        self.leases.insert(name.to_owned(), Held(lease, Arc::default()));
        Ok(name.to_owned())
    }

    fn lease(&mut self, name: &str, verb: &str, rest: &[&str]) -> Outcome {
        if verb == "drop" {
            return ok(self.leases.remove(name));
        }
        let Some(Held(lease, called)) = self.leases.get(name) else {
            return Ok(format!("there is no {name}"));
        };
        match (verb, rest) {
            ("release", []) => Ok(ended(lease.release().wait()?)),
            ("held", []) => yes(lease.is_held()),
            ("check", []) => lease.check().and_then(ok),
            ("renew", []) => lease.renew(None).wait().and_then(ok),
            ("renew", [ttl]) => lease.renew(Some(time(ttl))).wait().and_then(ok),
            ("fence", []) => Ok(lease.fence().map_or("none".to_owned(), |fence| fence.to_string())),
            ("slot", []) => Ok(lease.slots().iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
            ("token", []) => Ok(lease.token()),
            ("key", []) => Ok(lease.key().to_owned()),
            ("ttl", []) => Ok(format!("{}ms", lease.ttl().as_millis())),
            ("valid", []) => Ok(match lease.valid_for() {
                Duration::ZERO => "no",
                Duration::MAX => "forever",
                left if left <= lease.ttl() => "yes",
                _ => "no, it is for longer than its ttl",
            }
            .to_owned()),
            // What the library pushes, not what it computes when asked: `lost` resolves with true.
            ("lost-within", [limit]) => yes(lease.lost().wait_for(time(limit)).transpose()?.unwrap_or(false)),
            ("callback", []) => {
                let called = called.clone();
                lease.on_lost(move || {
                    called.fetch_add(1, Ordering::SeqCst);
                });
                ok(())
            }
            ("called", [limit]) => {
                within(time(limit), || called.load(Ordering::SeqCst) > 0);
                Ok(called.load(Ordering::SeqCst).to_string())
            }
            _ => Ok(format!("no step of a lease: {verb} {rest:?}")),
        }
    }

    fn call(&mut self, name: &str, verb: &str, lease: &str) -> Outcome {
        let Some(Call(canceller, result)) = self.calls.get(name) else {
            return Ok(format!("there is no {name}"));
        };
        match verb {
            "cancel" => {
                canceller.cancel();
                ok(())
            }
            "join" => {
                let obtained = result.recv().expect("a call answers once")?;
                self.got(obtained, lease)
            }
            // Waits a moment for an answer, so that `no` means something.
            "done" => {
                let answer = result.recv_timeout(Duration::from_millis(100));
                let done = answer.is_ok();
                if let Ok(answer) = answer {
                    let (tell, told) = channel();
                    tell.send(answer).expect("its receiver is here");
                    let canceller = canceller.clone();
                    self.calls.insert(name.to_owned(), Call(canceller, told));
                }
                yes(done)
            }
            _ => Ok(format!("no step of a call: {verb}")),
        }
    }
}

fn lock(client: &Client, key: &str, options: &[&str]) -> Lock {
    let mut lock = client.lock(key);
    for option in options {
        let (name, value) = option.split_once('=').expect("NAME=VALUE");
        lock = match name {
            "ttl" => lock.ttl(time(value)),
            "wait" => lock.wait(time(value)),
            "auto_renew" => lock.auto_renew(value == "true"),
            "max_hold" => lock.max_hold(time(value)),
            "token" => lock.token(value),
            "label" => lock.label(value),
            "fair" => lock.fair(value == "true"),
            "handoff" => lock.handoff(value.parse().expect("a number")),
            "mode" => lock.mode(if value == "shared" { Mode::Shared } else { Mode::Exclusive }),
            "limit" => lock.mode(Mode::Permits { count: 1, limit: value.parse().expect("a number") }),
            "permits" => {
                let Mode::Permits { limit, .. } = lock.options().mode else { panic!("limit= before permits=") };
                lock.mode(Mode::Permits { count: value.parse().expect("a number"), limit })
            }
            "retry" => {
                let (tries, delay) = value.split_once(',').expect("TRIES,DELAY");
                lock.retry((tries.parse().expect("a number"), time(delay)))
            }
            _ => panic!("no option {name}"),
        };
    }
    lock
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

fn ended(ended: ReleaseOutcome) -> String {
    match ended {
        ReleaseOutcome::Released => "released",
        ReleaseOutcome::Lost => "lost",
    }
    .to_owned()
}

/// How many of so many threads get the lock when all try at once.
fn rush(client: &Client, key: &str, many: usize) -> usize {
    let (lock, start) = (client.lock(key), Barrier::new(many));
    let one = || {
        start.wait();
        lock.try_acquire().wait().expect("a lease or busy")
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..many).map(|_| scope.spawn(one)).collect();
        // Joined before any is dropped, which would release it.
        let all: Vec<_> = all.into_iter().map(|one| one.join().expect("no panic")).collect();
        all.iter().filter(|lease| lease.is_some()).count()
    })
}

/// How many of so many threads, each of which gets the lock in the end, were ever inside at once.
fn crowd(client: &Client, key: &str, many: usize) -> usize {
    let (lock, inside, most) = (client.lock(key), AtomicUsize::new(0), AtomicUsize::new(0));
    let one = || {
        let lease = lock.acquire().wait().expect("a lease");
        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        inside.fetch_sub(1, Ordering::SeqCst);
        lease.release().wait().expect("released");
    };
    std::thread::scope(|scope| (0..many).for_each(|_| drop(scope.spawn(one))));
    most.load(Ordering::SeqCst)
}

fn contenders(client: &Client, key: &str, fields: &[&str]) -> Outcome {
    let all = client.contenders(key).wait()?;
    let [field] = fields else {
        return Ok(all.len().to_string());
    };
    let shown = all.iter().map(|contender| {
        let known = match *field {
            "held" => return yes(contender.held).expect("not an error"),
            "token" => contender.token.clone(),
            "label" => contender.label.clone(),
            "mode" => Some(match contender.mode {
                Mode::Exclusive => "exclusive".to_owned(),
                Mode::Shared => "shared".to_owned(),
                Mode::Permits { count, limit } => format!("{count}/{limit}"),
                other => format!("{other:?}"),
            }),
            "pid" => contender.pid.map(|pid| pid.to_string()),
            "fence" => contender.fence.map(|fence| fence.to_string()),
            "aged" => contender.age.map(|age| yes(age < PATIENCE).expect("not an error")),
            _ => Some(format!("no field {field}")),
        };
        known.unwrap_or("-".to_owned())
    });
    Ok(shown.collect::<Vec<_>>().join(" "))
}

fn capability(client: &Client, word: &str) -> Outcome {
    let can = client.capabilities();
    yes(match word {
        "fence" => can.fence,
        "ttl" => can.ttl,
        "fifo" => can.fifo,
        "shared" => can.shared,
        "permits" => can.permits,
        "fork" => can.fork,
        _ => return Ok(format!("no capability {word}")),
    })
}
