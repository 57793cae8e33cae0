//! Holder and waiters, as far as the server knows them.

use std::collections::HashMap;
use std::time::Duration;

use redis::Value;

use super::script::read;
use crate::contract::ContenderInfo;
use crate::contract::owner::parse_owner;
use crate::error::Result;

/// The record of the last grant: fence, claim, and the user's token and label.
struct Last {
    fence: u64,
    claim: String,
    token: String,
    label: String,
}

/// Reads the answer of the script `inspect`: holder first, then the queue.
pub(super) fn contenders(value: Value) -> Result<Vec<ContenderInfo>> {
    type Found = (Value, i64, Option<String>, Vec<(String, f64)>, HashMap<String, String>, u64, u64);
    let (owner, left, last, queue, details, seconds, micros): Found = read(value)?;
    let now = seconds * 1_000_000 + micros;
    let mut all = Vec::new();
    if owner != Value::Nil {
        all.push(holder(owner, left, last.as_deref().and_then(last_grant), now));
    }
    for (contender, ticket) in queue {
        let Some(detail) = details.get(&contender) else { continue };
        all.push(waiting(&contender, detail, ticket, now));
    }
    Ok(all)
}

/// Returns the holder.
fn holder(owner: Value, left: i64, last: Option<Last>, now: u64) -> ContenderInfo {
    let ttl = u64::try_from(left).ok().map(Duration::from_millis);
    let token: Option<String> = match owner {
        // Another client's key, which is no text.
        Value::Array(_) => None,
        text => redis::from_redis_value(text).ok(),
    };
    let mut holder = ContenderInfo { held: true, token, ttl, ..ContenderInfo::default() };
    let Some(token) = &holder.token else { return holder };
    match last {
        Some(last) if *token == last.claim || *token == last.token => {
            (holder.host, holder.pid) = parse_owner(&last.claim);
            holder.fence = Some(last.fence);
            holder.age = Some(Duration::from_micros(now.saturating_sub(last.fence)));
            holder.label = Some(last.label).filter(|label| !label.is_empty());
        }
        _ => (holder.host, holder.pid) = parse_owner(token),
    }
    holder
}

/// Reads the record of the last grant.
fn last_grant(text: &str) -> Option<Last> {
    let mut parts = text.splitn(4, ' ');
    let fence = parts.next()?.parse().ok()?;
    let claim = parts.next()?.to_owned();
    let (token, label) = user_text(parts.next()?, parts.next()?)?;
    Some(Last { fence, claim, token: token.to_owned(), label: label.to_owned() })
}

/// Reads the details of a waiter: `<claim> x <stamp> <deadline> <ttl> <block> <n> <token><label>`.
fn waiting(contender: &str, detail: &str, ticket: f64, now: u64) -> ContenderInfo {
    let (host, pid) = parse_owner(contender);
    let parts: Vec<_> = detail.splitn(8, ' ').collect();
    let texts = parts.get(6).zip(parts.get(7)).and_then(|(n, rest)| user_text(n, rest));
    let (token, label) = texts.unwrap_or_default();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds, exact below 2^53")]
    let age = now.saturating_sub(ticket as u64);
    ContenderInfo {
        held: false,
        token: if token.is_empty() { parts.first().map(ToString::to_string) } else { Some(token.to_owned()) },
        label: Some(label.to_owned()).filter(|label| !label.is_empty()),
        host,
        pid,
        age: Some(Duration::from_micros(age)),
        ..ContenderInfo::default()
    }
}

/// Splits `<token, n bytes><label>`.
fn user_text<'a>(n: &str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    rest.split_at_checked(n.parse().ok()?)
}
