//! Names in messages: those there are, and the one that was probably meant.

/// The end of a message about an unknown name: ` (did you mean …?)` if one is near, else nothing.
pub(crate) fn hint<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(name, names).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// The name that was probably meant, if one is near enough.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let folded = name.to_lowercase();
    let distance = |known: &&str| strsim::damerau_levenshtein(&folded, &known.to_lowercase());
    let near = names.min_by_key(distance)?;
    let limit = (folded.chars().count().min(near.len()) / 2).clamp(1, 3);
    (distance(&near) <= limit).then_some(near)
}

/// Names for a message: `a, b, c`, or `none`.
pub(crate) fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<T> = names.collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_only_when_it_is_near() {
        let names = ["addrs", "password", "db"];
        assert_eq!(nearest("adrs", names.into_iter()), Some("addrs"));
        assert_eq!(nearest("PASWORD", names.into_iter()), Some("password"));
        assert_eq!(nearest("wholly", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(10_000), names.into_iter()), None);
    }
}
