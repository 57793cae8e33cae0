//! A URL made fit for an error message: no password, and no parameter that may be a secret.
//!
//! It works on any text, also one that isn't a URL: a password typed without its percent-encoding (`p/w`, `p@w`, `p#w`)
//! is exactly what makes a URL unreadable. In doubt it hides too much.

use super::schema::{Schemas, options};

const HIDDEN: &str = "***";

/// The text with `***` for whatever may be secret.
pub(crate) fn redact(schemas: Schemas, url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(at) => url.split_at(at + 3),
        None => ("", url),
    };
    // With no authority there can't be a password before an @.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) if !rest_begins_path(user) => (Some(user), rest),
        _ => (None, rest),
    };
    let user = user.map(|user| match user.find([':', '%', '/', '?', '#']) {
        Some(end) => format!("{}:{HIDDEN}@", &user[..end]),
        None => format!("{user}@"),
    });
    let (rest, fragment) = match rest.split_once('#') {
        Some((rest, _)) => (rest, "#***"),
        None => (rest, ""),
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => {
            (rest, format!("?{}", query.split('&').map(|pair| parameter(schemas, pair)).collect::<Vec<_>>().join("&")))
        }
        None => (rest, String::new()),
    };
    format!("{scheme}{}{rest}{query}{fragment}", user.unwrap_or_default())
}

fn rest_begins_path(user: &str) -> bool {
    user.starts_with(['/', '?'])
}

fn parameter(schemas: Schemas, pair: &str) -> String {
    match pair.split_once('=') {
        Some((name, _)) if !is_harmless(schemas, name) => format!("{name}={HIDDEN}"),
        _ => pair.to_owned(),
    }
}

/// Returns true if some backend has an option of this name that may stand in a URL, and none has it as a secret.
fn is_harmless(schemas: Schemas, name: &str) -> bool {
    let mut found = schemas.iter().flat_map(|schema| options(schema)).filter(|opt| opt.name == name).peekable();
    found.peek().is_some() && found.all(|opt| opt.url && !opt.secret)
}

#[cfg(test)]
mod tests {
    use super::super::sample::schemas;
    use super::*;

    #[test]
    fn hides_whatever_may_be_secret() {
        let cases = [
            ("d://user:pw@h:1/0?prefix=a", "d://user:***@h:1/0?prefix=a"),
            ("d://:pw@h", "d://:***@h"),
            ("d://user:p/w@h", "d://user:***@h"),
            ("d://user:p@w@h", "d://user:***@h"),
            ("d://user:p?w@h", "d://user:***@h"),
            ("d://user:p#w@h", "d://user:***@h"),
            ("d://user%3Apw@h", "d://user:***@h"),
            ("d:user:pw@h", "d:***@h"),
            ("user:pw@h", "user:***@h"),
            ("d://user@h", "d://user@h"),
            ("d://h?password=pw&prefix=x", "d://h?password=***&prefix=x"),
            ("d://h#pw", "d://h#***"),
            ("file:///home/a@b", "file:///home/a@b"),
        ];
        for (url, shown) in cases {
            assert_eq!(redact(schemas(), url), shown);
        }
    }
}
