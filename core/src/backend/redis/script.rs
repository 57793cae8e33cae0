//! The scripts, which each connection loads into its server.

use std::sync::OnceLock;

use redis::{FromRedisValue, Value};

use super::keys;
use crate::error::{Error, Result, show};

/// A script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Acquires the lock, or adds the contender to the queue.
    Acquire,
    /// Releases the lock.
    Release,
    /// Leaves the queue, or releases a lock whose grant reached nobody.
    Withdraw,
    /// Takes the lock away from its owner.
    Break,
    /// Renews many leases.
    Renew,
    /// Returns holder and queue.
    Inspect,
}

/// The number of scripts.
pub(super) const COUNT: usize = 6;

impl Script {
    /// All scripts, in the order of their numbers.
    pub(super) const ALL: [Self; COUNT] =
        [Self::Acquire, Self::Release, Self::Withdraw, Self::Break, Self::Renew, Self::Inspect];

    /// Returns the script's text.
    pub(super) fn text(self) -> &'static str {
        static TEXTS: OnceLock<[String; COUNT]> = OnceLock::new();
        &TEXTS.get_or_init(|| Self::ALL.map(Self::build))[self as usize]
    }

    fn build(self) -> String {
        const COMMON: &str = include_str!("scripts/common.lua");
        const STRANGE: &str = include_str!("scripts/strange.lua");
        let parts: &[&str] = match self {
            Self::Acquire => {
                &[include_str!("scripts/acquire_free.lua"), COMMON, STRANGE, include_str!("scripts/acquire.lua")]
            }
            Self::Release => &[include_str!("scripts/release_alone.lua"), COMMON, include_str!("scripts/release.lua")],
            Self::Withdraw => &[COMMON, include_str!("scripts/withdraw.lua")],
            Self::Break => &[COMMON, STRANGE, include_str!("scripts/break.lua")],
            Self::Renew => &[include_str!("scripts/renew.lua")],
            Self::Inspect => &[STRANGE, include_str!("scripts/inspect.lua")],
        };
        // Each connection loads all scripts, so comments are left out.
        let lines = parts.iter().flat_map(|part| part.lines()).filter(|line| !line.trim_start().starts_with("--"));
        broken(lines.map(|line| format!("{line}\n")).collect())
    }
}

/// Reads the value of an answer.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T> {
    redis::from_redis_value(value)
        .map_err(|why| Error::refused(format!("Redis answered what was not expected: {why}; is it a Redis?")))
}

/// Returns the error for a script's answer `T type key`: the key belongs to another program.
pub(super) fn no_lock(value: &Value) -> Option<Error> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(what), kind, key] = parts.as_slice() else { return None };
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
    let (kind, key) = (text(kind), text(key));
    (what == b"T").then(|| {
        Error::refused(match keys::check(&key) {
            Ok(()) => format!(
                "the key {} holds a {kind}, which is no lock: use another key or a prefix, or delete it",
                show(&key)
            ),
            Err(_) => format!(
                "the key {}, which dlock keeps beside the lock, holds a {kind} of another program: rename or delete \
                 that, or use another key for the lock",
                show(&key)
            ),
        })
    })
}

/// Builds the deliberate defects of the scripts into a text.
fn broken(mut text: String) -> String {
    let mut change = |on: bool, from: &str, to: &str| {
        if on {
            text = text.replace(from, to);
        }
    };
    change(mutant!("redis-take-overwrites"), "'NX', 'PX'", "'PX'");
    change(mutant!("redis-take-again-is-busy"), "if ours then", "if false then");
    change(mutant!("redis-take-barges"), "redis.call('EXISTS', KEYS[3]) == 0\n  and", "true and");
    change(mutant!("redis-late-take-accepted"), "f <= ARGV[3] and", "");
    change(mutant!("redis-late-take-accepted"), "if ms > ARGV[3] / 1000 then", "if false then");
    change(mutant!("redis-only-releases-promote"), "if v == false then", "if false then");
    change(mutant!("redis-dead-contender-served"), "if tonumber(dead) >= ms then", "if true then");
    change(mutant!("redis-release-without-owner-check"), "redis.pcall('GET', KEYS[1]) == ARGV[2]", "true");
    change(mutant!("redis-release-without-owner-check"), "if v ~= token then return false, v end", "");
    change(mutant!("redis-renew-without-owner-check"), "local ours = redis", "local ours = true or redis");
    change(mutant!("redis-messages-replicated"), "redis.set_repl(redis.REPL_NONE)", "");
    change(mutant!("redis-renewals-forget-the-fence"), "left < FENCE_TTL / 2", "false");
    change(mutant!("redis-break-deletes-anything"), "if odd then return odd end\nlocal owner", "local owner");
    change(mutant!("redis-break-takes-any-owner"), "if owner ~= ARGV[1] or", "if not ARGV[1] or false and");
    change(mutant!("redis-polling-head-overtaken"), "if not receivers then", "if false then");
    change(mutant!("redis-fence-not-floored"), "t[1] * 1000000 + t[2]", "t[1] * 0 + 1");
    change(mutant!("redis-fence-not-floored"), "'%010d%06d', t[1], t[2]", "'%016d', 1");
    text
}
