//! Direct hand-over in a bare client: the scripts of the Redis backend over one blocking socket, and nothing else.

use std::time::Duration;

use crate::Outcome;
use crate::base::Pair;
use crate::raw::{Raw, Reply};

macro_rules! script {
    ($name:literal) => {
        include_str!(concat!("../../../core/src/backend/redis/scripts/", $name, ".lua"))
    };
}

pub(crate) struct Handover {
    raw: Raw,
    take: String,
    give: String,
    keys: [String; 4],
    contender: String,
    claim: u64,
    /// The server's clock less ours, in milliseconds.
    offset: i64,
}

impl Handover {
    pub(crate) fn new(url: &str, key: &str) -> Outcome<Self> {
        let mut raw = Raw::connect(url)?;
        raw.ask(&["HELLO", "3"])?;
        let contender = format!("dlock:bench:{}:raw:1", std::process::id());
        raw.ask(&["SUBSCRIBE", &format!("dlock:c:{contender}")])?;
        let mut load = |parts: &[&str]| {
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                raw.ask(&["SCRIPT", "LOAD", &parts.concat()])?.text().to_owned(),
            )
        };
        let take = load(&[script!("acquire_free"), script!("common"), script!("strange"), script!("acquire")])?;
        let give = load(&[script!("release_alone"), script!("common"), script!("release")])?;
        let Reply::List(time) = raw.ask(&["TIME"])? else { return Err("TIME tells no time".into()) };
        let offset = time[0].text().parse::<i64>()? * 1000 + time[1].text().parse::<i64>()? / 1000 - now_ms();
        let side = |kind: &str| format!("dlock:{kind}:{{{key}}}");
        let keys = [key.to_owned(), side("f"), side("q"), side("d")];
        Ok(Self { raw, take, give, keys, contender, claim: 0, offset })
    }

    fn ask_to_take(&mut self, claim: &str, ticket: &str) -> Outcome<Reply> {
        let [k, f, q, d] = &self.keys;
        let sent = dlock::clock::Instant::now().nanos();
        let till = format!("{:016}", (now_ms() + self.offset + 5000) * 1000);
        let tail = format!(" {claim} 0 ");
        let rest = format!("x {} {claim} 0 15000 {sent} {ticket}", self.contender);
        self.raw.send(&["EVALSHA", &self.take, "4", k, f, q, d, claim, "30000", &till, &tail, &rest])?;
        self.answer()
    }

    /// The reply. What was pushed before it says nothing that the reply doesn't.
    fn answer(&mut self) -> Outcome<Reply> {
        loop {
            match self.raw.reply()? {
                Reply::Push(_) => {}
                reply => return Ok(reply),
            }
        }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.contender, self.claim)
    }
}

impl Pair for Handover {
    fn take(&mut self) -> Outcome<()> {
        self.claim += 1;
        let claim = self.name();
        let granted = format!("G {claim} ");
        let mut ticket = "0".to_owned();
        loop {
            match self.ask_to_take(&claim, &ticket)? {
                Reply::Text(_) => return Ok(()),
                Reply::List(busy) => {
                    let [_, Reply::Int(left), _, Reply::Text(place), _] = busy.as_slice() else {
                        return Err(format!("take got {busy:?}").into());
                    };
                    ticket.clone_from(place);
                    // Left free for others for a moment: nobody tells when it is over.
                    if (0..100).contains(left) {
                        std::thread::sleep(Duration::from_millis(left.unsigned_abs()));
                        continue;
                    }
                }
                other => return Err(format!("take got {other:?}").into()),
            }
            // Granted, or to be asked for again.
            if let Reply::Push(message) = self.raw.reply()?
                && message.last().is_some_and(|text| text.text().starts_with(&granted))
            {
                return Ok(());
            }
        }
    }

    fn give(&mut self) -> Outcome<()> {
        let (claim, [k, f, q, d]) = (self.name(), &self.keys);
        self.raw.send(&["EVALSHA", &self.give, "4", k, f, q, d, &self.contender, &claim, ""])?;
        let given = self.answer()?;
        if given.text() == "G" { Ok(()) } else { Err(format!("give got {given:?}").into()) }
    }
}

fn now_ms() -> i64 {
    i64::try_from(dlock::clock::Instant::now().nanos() / 1_000_000).unwrap_or(0)
}
