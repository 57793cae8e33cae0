//! Reads a YAML file that nobody named: it may be the application's own, and what in it was meant for us is never
//! passed over.

use std::path::Path;

use super::block::{Block, ENABLED, name, read};
use super::env::variable;
use super::schema::{SERVICES, Schema, Schemas, absent as lacking, option};
use super::source::{ELSEWHERE, Found};
use super::value::yaml_flag;
use super::yaml::{Node, Yaml, YamlError, parse};
use crate::error::{Error, Result};

/// Reads a file that may be the application's own. Only blocks of ours count that are enabled, here or by
/// `enabled(name)`, which is stronger; they have to be right. `None`: nothing in it concerns us, as the notes say.
pub(super) fn counted(
    schemas: Schemas,
    path: &Path,
    found: &Found,
    enabled: impl Fn(&str) -> Option<bool>,
    notes: &mut Vec<String>,
) -> Result<Option<Vec<Block>>> {
    let place = |line: usize| format!("{}:{line}", path.display());
    let services = || schemas.iter().filter(|schema| schema.service).map(|schema| schema.name);
    let absent = || SERVICES.iter().copied().filter(|name| services().all(|known| known != *name));
    let documents = match documents(&found.bytes) {
        Ok(documents) => documents,
        Err((line, why)) => {
            let text = String::from_utf8_lossy(&found.bytes);
            let concern = services().chain(absent()).filter(|name| enabled(name) != Some(false));
            unparsable(&text, concern, &format!("{}: {why}", place(line)), notes)?;
            return Ok(None);
        }
    };
    let pairs =
        || documents.iter().filter_map(|root| if let Yaml::Map(pairs) = &root.what { Some(pairs) } else { None });
    let named = |name: &'static str| {
        let is = move |key: &Node| matches!(&key.what, Yaml::Text(text) if text == name);
        pairs().flatten().filter(move |(key, _)| is(key))
    };
    let mut blocks: Vec<Block> = Vec::new();
    let refuse =
        |line: usize, name: &str, why: &str| Err(Error::invalid(format!("{}: {why}", place(line))).with_backend(name));
    for schema in schemas.iter().copied().filter(|schema| schema.service) {
        for (key, value) in named(schema.name) {
            let own = Switch::of(schema, value);
            if !enabled(schema.name).unwrap_or(own != Switch::Foreign && own != Switch::Off) {
                continue;
            }
            let block = read(schema, path, key, value);
            match block {
                // The application's own block of that name; the environment is what enables ours.
                Err(error) if own == Switch::Foreign => notes.push(format!(
                    "block {} ignored, since it doesn't say `enabled: true` and isn't of our keys: {}",
                    schema.name,
                    error.message()
                )),
                _ if found.distrust.is_some() => {
                    let why = found.distrust.unwrap_or_default();
                    return refuse(
                        key.line,
                        schema.name,
                        &format!("{} is enabled here, but {why}; {ELSEWHERE}", schema.name),
                    );
                }
                Ok(block) if blocks.iter().any(|other| other.values.schema.name == schema.name) => {
                    return Err(Error::invalid(format!("{}: a second block {}; keep one", block.place, schema.name)));
                }
                block => blocks.push(block?),
            }
        }
    }
    for name in absent().filter(|name| enabled(name) != Some(false)) {
        if let Some((key, _)) = named(name).find(|(_, value)| switched_on(value)) {
            let why = lacking(schemas, name);
            let remedy = format!("write `enabled: false`, or set {}=false", variable(name, ENABLED));
            return refuse(key.line, name, &format!("{why}; {remedy}"));
        }
    }
    Ok((!blocks.is_empty()).then_some(blocks))
}

/// Ignores a text that can't be parsed, but not if it names one of these services: nobody knows what it says of it.
fn unparsable(
    text: &str,
    mut services: impl Iterator<Item = &'static str>,
    why: &str,
    notes: &mut Vec<String>,
) -> Result<()> {
    let named = services.find_map(|name| Some((name, naming_line(text, name)?)));
    let Some((name, at)) = named else {
        notes.push(format!("ignored: {why}"));
        return Ok(());
    };
    Err(Error::invalid(format!(
        "{why}; line {at} names {name}, so the file may be meant for dlock. Mend it, {ELSEWHERE}"
    )))
}

/// The parts of a file, or from which line on nothing can be known of it, and why.
fn documents(bytes: &[u8]) -> Result<Vec<Node>, (usize, String)> {
    let text = str::from_utf8(bytes).map_err(|error| {
        let lines = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        (lines + 1, "this isn't UTF-8".to_owned())
    })?;
    parse(text).map_err(|YamlError { line, why }| (line, format!("this isn't YAML: {why}")))
}

/// The kind of a block in a file that may be the application's own.
#[derive(Clone, Copy, PartialEq)]
enum Switch {
    /// `enabled: true`.
    On,
    /// `enabled: false`.
    Off,
    /// It says neither, but has an `enabled` beside nothing but keys of ours: a slip of whoever meant us.
    Unclear,
    /// It says neither, so it isn't ours.
    Foreign,
}

impl Switch {
    fn of(schema: &'static Schema, block: &Node) -> Self {
        let Some((pairs, value)) = enabled_of(block) else { return Self::Foreign };
        match &value.what {
            Yaml::Text(text) if yaml_flag(text).is_some() => match yaml_flag(text) {
                Some(true) => Self::On,
                _ => Self::Off,
            },
            Yaml::Null => Self::Foreign,
            _ => {
                let ours = |key: &Node| {
                    name(key).is_ok_and(|name| name == ENABLED || option(schema, name).is_some_and(|opt| opt.yaml))
                };
                if pairs.iter().all(|(key, _)| ours(key)) { Self::Unclear } else { Self::Foreign }
            }
        }
    }
}

fn enabled_of(block: &Node) -> Option<(&[(Node, Node)], &Node)> {
    let Yaml::Map(pairs) = &block.what else { return None };
    let (_, value) = pairs.iter().find(|(key, _)| matches!(&key.what, Yaml::Text(text) if text == ENABLED))?;
    Some((pairs, value))
}

fn switched_on(block: &Node) -> bool {
    enabled_of(block).is_some_and(|(_, value)| matches!(&value.what, Yaml::Text(text) if yaml_flag(text) == Some(true)))
}

/// The line, from 1, in which a text that can't be parsed has this name as a key.
fn naming_line(text: &str, name: &str) -> Option<usize> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let key = |line: &str| {
        !line.trim_start().starts_with('#')
            && line.match_indices(name).any(|(at, _)| {
                let rest = &line[at + name.len()..];
                let bare = rest.trim_start_matches(['"', '\'']);
                let value = bare.trim_start().strip_prefix(':');
                let ends =
                    |value: &str| value.is_empty() || value.starts_with(char::is_whitespace) || bare.len() < rest.len();
                !line[..at].ends_with(word) && value.is_some_and(ends)
            })
    };
    text.lines().position(key).map(|at| at + 1)
}
