//! The bare commands over a blocking socket: what a lock can cost at the least.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::Outcome;
use crate::base::Pair;
use crate::calls::place;

/// Releases a lock that is ours: what every client of this kind sends.
pub(crate) const DELETE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// One connection.
pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
    take: Vec<u8>,
    give: Vec<u8>,
}

/// What the server said, and what it pushed (of RESP3).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    None,
    Int(i64),
    Text(String),
    List(Vec<Self>),
    Push(Vec<Self>),
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        if let Self::Text(text) = self { text } else { "" }
    }
}

impl Raw {
    pub(crate) fn connect(url: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(place(url))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), take: Vec::new(), give: Vec::new() })
    }

    /// One connection that takes and gives this key.
    pub(crate) fn lock(url: &str, key: &str) -> Outcome<Self> {
        let mut raw = Self::connect(url)?;
        let hash = raw.ask(&["SCRIPT", "LOAD", DELETE])?.text().to_owned();
        raw.take = packed(&["SET", key, "raw-token", "NX", "PX", "30000"]);
        raw.give = packed(&["EVALSHA", &hash, "1", key, "raw-token"]);
        Ok(raw)
    }

    pub(crate) fn ask(&mut self, words: &[&str]) -> Outcome<Reply> {
        self.send(words)?;
        self.reply()
    }

    pub(crate) fn send(&mut self, words: &[&str]) -> Outcome<()> {
        Ok(self.stream.get_ref().write_all(&packed(words))?)
    }

    pub(crate) fn reply(&mut self) -> Outcome<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or("the server is gone")?;
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            ":" => Reply::Int(rest.parse()?),
            "_" => Reply::None,
            "$" | "*" if rest == "-1" => Reply::None,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>()? + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8(bytes)?)
            }
            "*" => Reply::List(self.replies(rest.parse()?)?),
            "%" => Reply::List(self.replies(rest.parse::<usize>()? * 2)?),
            ">" => Reply::Push(self.replies(rest.parse()?)?),
            _ => return Err(line.into()),
        })
    }

    /// Sends what `make` makes for so many, some with one write; each reply must pass.
    pub(crate) fn batches(
        &mut self,
        count: usize,
        batch: usize,
        make: impl Fn(usize) -> Vec<u8>,
        pass: impl Fn(&Reply) -> bool,
    ) -> Outcome<()> {
        for first in (0..count).step_by(batch) {
            let numbers = first..count.min(first + batch);
            self.stream.get_ref().write_all(&numbers.clone().flat_map(&make).collect::<Vec<_>>())?;
            for reply in self.replies(numbers.len())? {
                if !pass(&reply) {
                    return Err(format!("one of many got {reply:?}").into());
                }
            }
        }
        Ok(())
    }

    fn replies(&mut self, count: usize) -> Outcome<Vec<Reply>> {
        (0..count).map(|_| self.reply()).collect()
    }
}

impl Pair for Raw {
    fn take(&mut self) -> Outcome<()> {
        self.stream.get_ref().write_all(&self.take)?;
        let reply = self.reply()?;
        if reply.text() == "OK" { Ok(()) } else { Err(format!("SET got {reply:?}").into()) }
    }

    fn give(&mut self) -> Outcome<()> {
        self.stream.get_ref().write_all(&self.give)?;
        let reply = self.reply()?;
        if reply == Reply::Int(1) { Ok(()) } else { Err(format!("EVALSHA got {reply:?}").into()) }
    }
}

pub(crate) fn packed(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}
