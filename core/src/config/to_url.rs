//! Writes the canonical URL of a configuration, without its secrets.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::option_spec::Scheme;
use super::schema::{MODE, TLS, Values};
use super::value::written;

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &PLAIN.remove(b'/');
const PARAMETER: &AsciiSet = &PLAIN.remove(b'/').remove(b':').remove(b',');

/// Percent-encodes a host, user or part of a path, so that nothing in it has a meaning of its own.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// Percent-encodes a path; its slashes stay.
pub fn encode_path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// Writes hosts as they stand in a URL: encoded, IPv6 addresses in brackets, commas between.
pub fn write_hosts(hosts: &[(String, Option<u16>)]) -> String {
    let one = |(host, port): &(String, Option<u16>)| {
        let host = match host.split_once('%') {
            _ if !host.contains(':') => encode(host),
            Some((address, zone)) => format!("[{address}%25{}]", encode(zone)),
            None => format!("[{host}]"),
        };
        port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    };
    hosts.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The canonical URL: the scheme that says most, what the schema writes, the other options in order of their names.
pub(crate) fn url(values: &Values) -> String {
    let scheme = scheme(values);
    let said = |name| (name == MODE && scheme.mode.is_some()) || (name == TLS && scheme.tls);
    let parameters: Vec<_> = values
        .iter()
        .filter(|(opt, name, _)| opt.is_some_and(|opt| opt.url && !opt.secret) && !said(*name))
        .map(|(_, name, value)| format!("{name}={}", utf8_percent_encode(&written(value), PARAMETER)))
        .collect();
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{}://{}{mark}{}", scheme.name, (values.schema.authority)(values), parameters.join("&"))
}

/// Of the schema's schemes that contradict nothing the one that says most, the first of equals.
fn scheme(values: &Values) -> &'static Scheme {
    let mut best: Option<&Scheme> = None;
    for scheme in values.schema.schemes {
        let mode = scheme.mode.is_none_or(|mode| values.text(MODE) == Some(mode));
        let tls = !scheme.tls || values.flag(TLS) == Some(true);
        let says = |scheme: &Scheme| (scheme.mode.is_some(), scheme.tls);
        if mode && tls && best.is_none_or(|best| says(scheme) > says(best)) {
            best = Some(scheme);
        }
    }
    const NONE: &Scheme = &Scheme { name: "unknown", tls: false, mode: None };
    best.or(values.schema.schemes.first()).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::super::sample::schemas;
    use super::super::service::Config;
    use super::super::value::Value;

    fn read(url: &str) -> Config {
        Config::parse(schemas(), url).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn canonical_urls_read_back() {
        let cases = [
            ("depot://h", "depot://h:77"),
            ("DEPOTS://me@h:1,[::1]:2/3?prefix=a%2Fb:c", "depots://me@h:1,[::1]:2/3?prefix=a/b:c"),
            ("depot+many://h:1?tls=true", "depot+many://h:1?tls=true"),
            ("depot://h:1?tls=true", "depots://h:1"),
            ("depot://h:1?tls=0&connect_timeout=1.5", "depot://h:1?connect_timeout=1500ms"),
            ("depots://h:1?ca=/c%20a&prefix=", "depots://h:1?ca=/c%20a&prefix="),
            ("depots://[fe80::1%25eth0]:2", "depots://[fe80::1%25eth0]:2"),
            ("shelf://h?mode=table", "shelf://h?mode=table"),
        ];
        for (given, canonical) in cases {
            let config = read(given);
            assert_eq!(config.url(), canonical);
            assert_eq!(read(canonical), config, "{given}");
        }
    }

    #[test]
    fn leaves_secrets_out() {
        let config = read("depot://me:hunter2@h:1");
        assert_eq!((config.url().as_str(), config.has_secrets()), ("depot://me@h:1", true));
        assert_eq!(config.values().text("password"), Some("hunter2"));
        assert!(!format!("{config:?} {config}").contains("hunter2"));
        assert_ne!(config, read("depot://me@h:1"));
    }

    #[test]
    fn equal_meanings_are_equal() {
        let typed = |options: &[(&str, Value)]| {
            Config::typed(schemas(), "depot", options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())))
                .unwrap_or_else(|error| panic!("{error}"))
        };
        let addrs = ("addrs", Value::List(vec!["h:1".to_owned()]));
        assert_eq!(typed(&[addrs.clone(), ("tls", Value::Flag(false))]), read("depot://h:1"));
        assert_eq!(typed(&[addrs.clone(), ("mode", Value::Text("many".to_owned()))]), read("depot+many://h:1"));
        assert_eq!(typed(&[addrs, ("ca", Value::Text("/ca".to_owned()))]), read("depots://h:1?ca=/ca"));
    }
}
