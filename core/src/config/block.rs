//! The settings of one service from the environment or from YAML, and the reading of it from a YAML file that was
//! named.

use std::collections::HashSet;
use std::path::Path;

use super::names::{hint, list};
use super::option_spec::ValueKind;
use super::schema::{Schema, Schemas, Values, option, options};
use super::value::{Value, convert, yaml_flag};
use super::yaml::{Node, Yaml, YamlError, parse};
use crate::error::{Error, Result, show};

/// The key, and the end of the variable, that switches a service on.
pub(super) const ENABLED: &str = "enabled";

/// The settings of one service from one source.
pub(super) struct Block {
    /// Its place, for messages: `file:line`, or the name of a variable.
    pub(super) place: String,
    pub(super) enabled: Option<bool>,
    pub(super) values: Values,
}

impl Block {
    pub(super) fn new(schema: &'static Schema, place: impl Into<String>) -> Self {
        Self { place: place.into(), enabled: None, values: Values::new(schema) }
    }
}

/// Reads a file that was named explicitly: all of it has to be right.
pub(super) fn strict(schemas: Schemas, path: &Path, text: &str) -> Result<Vec<Block>> {
    let refuse = |line: usize, why: String| Error::invalid(format!("{}:{line}: {why}", path.display()));
    let documents = parse(text).map_err(|YamlError { line, why }| refuse(line, format!("this isn't YAML: {why}")))?;
    if let Some(second) = documents.get(1) {
        return Err(refuse(second.line, "a second document; write everything into one".to_owned()));
    }
    let pairs = match documents.into_iter().next().map(|root| (root.line, root.what)) {
        None | Some((_, Yaml::Null)) => return Ok(Vec::new()),
        Some((_, Yaml::Map(pairs))) => pairs,
        Some((line, _)) => {
            return Err(refuse(line, "the file has no blocks; write `name:`, its keys below".to_owned()));
        }
    };
    no_duplicates(&pairs).map_err(|(line, why)| refuse(line, why))?;
    let names = || schemas.iter().filter(|schema| schema.service).map(|schema| schema.name);
    let mut blocks = Vec::new();
    for (key, value) in &pairs {
        let name = name(key).map_err(|(line, why)| refuse(line, why))?;
        let schema = schemas.iter().copied().find(|schema| schema.service && schema.name == name).ok_or_else(|| {
            let (hint, names) = (hint(name, names()), list(names()));
            refuse(key.line, format!("there is no block {}{hint}; this build has: {names}", show(name)))
        })?;
        blocks.push(read(schema, path, key, value)?);
    }
    Ok(blocks)
}

pub(super) fn read(schema: &'static Schema, path: &Path, key: &Node, block: &Node) -> Result<Block> {
    let place = |line: usize| format!("{}:{line}", path.display());
    let refuse = |line, why| Error::invalid(format!("{}: {why}", place(line))).with_backend(schema.name);
    let Yaml::Map(pairs) = &block.what else {
        return Err(refuse(
            block.line,
            format!("the block {} has no keys; write `enabled: true` below it", schema.name),
        ));
    };
    no_duplicates(pairs).map_err(|(line, why)| refuse(line, why))?;
    let mut found = Block::new(schema, place(key.line));
    for (key, node) in pairs {
        let name = name(key).map_err(|(line, why)| refuse(line, why))?;
        let refuse_value = |why| refuse(node.line, format!("{}.{name}: {why}", schema.name));
        if name == ENABLED {
            let text = if let Yaml::Text(text) = &node.what { text.as_str() } else { "" };
            found.enabled = Some(yaml_flag(text).ok_or_else(|| refuse_value("write true or false".to_owned()))?);
            continue;
        }
        let opt = option(schema, name).filter(|opt| opt.yaml).ok_or_else(|| {
            let names = || options(schema).filter(|opt| opt.yaml).map(|opt| opt.name).chain([ENABLED]);
            let (hint, names) = (hint(name, names()), list(names()));
            refuse(key.line, format!("{} has no key {}{hint}; it has: {names}", schema.name, show(name)))
        })?;
        if let Some(mut value) = value(node).map_err(|why| refuse_value(why.to_owned()))? {
            if let (ValueKind::Flag, Value::Text(text)) = (opt.kind, &value) {
                value = yaml_flag(text).map_or(value, Value::Flag);
            }
            found.values.set(opt.name, convert(&opt, value).map_err(refuse_value)?);
        }
    }
    Ok(found)
}

/// The value of a node; null is the same as not written at all.
fn value(node: &Node) -> Result<Option<Value>, &'static str> {
    const TAG: &str = "tags (!…) aren't understood here; write the value itself";
    const ENTRY: &str = "every entry of the list must be a text";
    match &node.what {
        _ if node.tagged => Err(TAG),
        Yaml::Null => Ok(None),
        Yaml::Text(text) => Ok(Some(Value::Text(text.clone()))),
        Yaml::Map(_) => Err("a value stands here, not keys; write it on the same line"),
        Yaml::List(nodes) => {
            let text = |node: &Node| match &node.what {
                _ if node.tagged => Err(TAG),
                Yaml::Text(text) => Ok(text.clone()),
                Yaml::Null | Yaml::List(_) | Yaml::Map(_) => Err(ENTRY),
            };
            nodes.iter().map(text).collect::<Result<_, _>>().map(|texts| Some(Value::List(texts)))
        }
    }
}

pub(super) fn name(key: &Node) -> Result<&str, (usize, String)> {
    match &key.what {
        Yaml::Text(text) => Ok(text),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => Err((key.line, "a key must be a word".to_owned())),
    }
}

fn no_duplicates(pairs: &[(Node, Node)]) -> Result<(), (usize, String)> {
    let mut seen = HashSet::new();
    let twice = pairs.iter().find_map(|(key, _)| match &key.what {
        Yaml::Text(text) if !seen.insert(text) => Some((key.line, text)),
        _ => None,
    });
    twice.map_or(Ok(()), |(line, text)| Err((line, format!("the key {} stands twice; keep one", show(text)))))
}
