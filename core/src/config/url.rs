//! A URL taken apart: scheme, user, hosts, path and parameters, each checked and percent-decoded.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::redact::redact;
use super::schema::Schemas;
use super::url_parts::UrlParts;
use crate::error::{Error, Result, show};

/// A URL, not yet understood by a schema.
pub(crate) struct Url {
    pub(crate) parts: UrlParts,
    /// In the order given; no name twice.
    pub(crate) parameters: Vec<(String, String)>,
}

/// The scheme in lower case and what follows it; `None` if the text has none.
pub(crate) fn scheme(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    (!scheme.is_empty() && scheme.chars().all(valid)).then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Takes a URL with a scheme apart.
pub(crate) fn parse(schemas: Schemas, url: &str) -> Result<Url> {
    let refuse = |why: String| Error::invalid(format!("URL {}: {why}", show(&redact(schemas, url))));
    let Some((_, rest)) = scheme(url) else {
        return Err(refuse("it has no scheme; begin it with one, as in file:///dir".to_owned()));
    };
    if url.chars().any(char::is_control) {
        return Err(refuse("it has a control character (a line break, perhaps); take it out or encode it".to_owned()));
    }
    if rest.contains('#') {
        return Err(refuse(
            "it has a fragment (#…), which means nothing here; write %23 for a # that is meant".to_owned(),
        ));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password with a bare / or ? ends the authority early, and its first half would be shown as a wrong port.
    if authority.contains(':') && (query.contains('@') || path.contains('@')) {
        let why = "it has an @ behind the hosts; write %40 for it, or %2F, %3F for a / or ? in the password before it";
        return Err(refuse(why.to_owned()));
    }
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let given = |text: &str, what: &str| -> Result<Option<String>> {
        let text = decode(text).map_err(|why| refuse(format!("{what} {why}")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    };
    let parts = UrlParts {
        hosts: parse_hosts(hosts).map_err(&refuse)?,
        user: given(user, "its user")?,
        password: given(password, "its password (not shown)")?,
        path: given(path, "its path")?.unwrap_or_default(),
    };
    Ok(Url { parts, parameters: parse_query(query).map_err(refuse)? })
}

/// The host and port of `host:port`, `host`, `[::1]:port` or `[::1]`, as an entry of a list of servers is written.
///
/// # Errors
/// `Invalid`, saying what is wrong with the text.
pub fn host_port(text: &str) -> Result<(String, Option<u16>)> {
    split_host(text).map_err(|why| Error::invalid(format!("{}: {why}", show(text))))
}

/// The reverse of [`host_port`]: an IPv6 address gets its brackets.
pub fn join_host(host: &str, port: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

fn parse_hosts(text: &str) -> Result<Vec<(String, Option<u16>)>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|text| {
            let (host, port) = split_host(text)?;
            Ok((decode(&host).map_err(|why| format!("its host {} {why}", show(&host)))?, port))
        })
        .collect()
}

fn split_host(text: &str) -> Result<(String, Option<u16>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("an IPv6 address has no closing bracket; write [::1]:port")?;
        let address = host.split_once('%').map_or(host, |(address, _zone)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(format!("{} in brackets isn't an IPv6 address", show(host)));
        }
        return match rest.strip_prefix(':') {
            Some(number) => Ok((host.to_owned(), Some(port(number)?))),
            None if rest.is_empty() => Ok((host.to_owned(), None)),
            None => Err(format!("{} stands behind the bracket; only :port may", show(rest))),
        };
    }
    match text.split_once(':') {
        None if text.is_empty() => {
            Err("an entry of the hosts is empty; write host or host:port, with commas between".to_owned())
        }
        None => Ok((text.to_owned(), None)),
        Some((_, rest)) if rest.contains(':') => {
            Err(format!("{} has several colons; an IPv6 address stands in brackets: [::1]:port", show(text)))
        }
        Some(("", _)) => Err("a port has no host before it; write host:port".to_owned()),
        Some((host, number)) => Ok((host.to_owned(), Some(port(number)?))),
    }
}

fn port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { text.parse().ok().filter(|number| *number > 0) } else { None };
    number.ok_or_else(|| format!("the port {} isn't a number from 1 to 65535; write host:port", show(text)))
}

fn parse_query(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name).map_err(|why| format!("the name of a parameter {why}"))?;
        if !pair.contains('=') {
            return Err(format!("the parameter {} has no value; write name=value", show(&name)));
        }
        if found.iter().any(|(other, _)| *other == name) {
            return Err(format!("the parameter {} is given twice; give it once", show(&name)));
        }
        let value = decode(value).map_err(|why| format!("the parameter {} {why}", show(&name)))?;
        found.push((name, value));
    }
    Ok(found)
}

fn decode(text: &str) -> Result<String, String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if !after.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)) {
            return Err("has a % without two hexadecimal digits; write %25 for a % that is meant".to_owned());
        }
        rest = &after[2..];
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "isn't UTF-8 once percent-decoded".to_owned())?;
    if decoded.contains('\0') {
        return Err("has a NUL character (%00); take it out".to_owned());
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::sample::schemas;
    use super::*;

    #[test]
    fn takes_apart() {
        let url = parse(schemas(), "DEPOT+many://us%40er:p%2Fw@h1:1,h2,[::1]:3/a%20b?x=1%262&y=")
            .unwrap_or_else(|e| panic!("{e}"));
        let hosts = vec![("h1".to_owned(), Some(1)), ("h2".to_owned(), None), ("::1".to_owned(), Some(3))];
        assert_eq!(&url.parts.hosts, &hosts);
        assert_eq!((url.parts.user.as_deref(), url.parts.password.as_deref()), (Some("us@er"), Some("p/w")));
        assert_eq!(url.parts.path, "/a b");
        let pairs = [("x".to_owned(), "1&2".to_owned()), ("y".to_owned(), String::new())];
        assert_eq!(url.parameters, pairs);
        let bare = parse(schemas(), "file:///dir").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(bare.parts, UrlParts { path: "/dir".to_owned(), ..UrlParts::default() });
    }

    #[test]
    fn refuses_with_a_remedy() {
        let cases = [
            ("h:6379", "no scheme"),
            ("d://:6379", "no host before it"),
            ("d://h:", "1 to 65535"),
            ("d://h:0", "1 to 65535"),
            ("d://h:65536", "1 to 65535"),
            ("d://h:+1", "1 to 65535"),
            ("d://a,,b", "empty"),
            ("d://::1", "brackets"),
            ("d://[::1", "closing bracket"),
            ("d://[::1]x", "only :port"),
            ("d://[x]:1", "isn't an IPv6"),
            ("d://h/%zz", "%25"),
            ("d://h/%", "%25"),
            ("d://h/%é1", "%25"),
            ("d://h/%ff", "UTF-8"),
            ("d://h/%00", "NUL"),
            ("d://h#x", "%23"),
            ("d://h?a=1&a=2", "twice"),
            ("d://h?a", "name=value"),
            ("d://h\n", "control"),
            ("d://me:pw/pw@h", "%2F"),
            ("d://me:pw?pw@h", "%3F"),
        ];
        for (url, part) in cases {
            let why = parse(schemas(), url).err().unwrap_or_else(|| panic!("{url} was taken")).to_string();
            assert!(why.contains(part) && !why.contains("pw"), "{url}: {why}");
        }
    }

    #[test]
    fn joins_what_it_splits() {
        for text in ["h", "h:1", "[::1]", "[fe80::1%eth0]:7"] {
            let (host, port) = host_port(text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(join_host(&host, port), text);
        }
    }
}
