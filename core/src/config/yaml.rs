//! YAML as a tree of texts with their lines, built from the parser's events.
//!
//! The usual loaders turn `0123` into a number before anyone knows what is wanted, refuse a duplicate key wherever it
//! stands, and overflow the stack on a few kilobytes of `- - - -`: an application's own file must not do that to it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

/// The depth to which a document may nest; ours need three.
const DEPTH: usize = 64;
/// The number of nodes that aliases may copy.
const COPIES: usize = 100_000;

/// One value of a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: usize,
    /// True if it has a tag that YAML itself doesn't know.
    pub(super) tagged: bool,
    /// True if it is a `<<` without quotes: as a key, it brings in the keys of a map.
    merge: bool,
    pub(super) what: Yaml,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Yaml {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// The reason and the place where a text isn't YAML.
#[derive(Debug, PartialEq)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) why: String,
}

/// The documents of a text.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| YamlError { line: error.marker().line(), why: error.info().to_owned() })?;
        let line = span.start.line();
        builder.take(event, line).map_err(|why| YamlError { line, why: why.to_owned() })?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

/// A list or map whose end hasn't come yet.
struct Open {
    node: Node,
    key: Option<Node>,
    anchor: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let null = style == ScalarStyle::Plain && tag.is_none() && is_null(&text);
                let merge = style == ScalarStyle::Plain && tag.is_none() && text == "<<";
                let what = if null { Yaml::Null } else { Yaml::Text(text.into_owned()) };
                self.add(Node { line, tagged: is_foreign(tag.as_ref()), merge, what }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.start(line, anchor, tag.as_ref(), Yaml::List(Vec::new())),
            Event::MappingStart(anchor, tag) => self.start(line, anchor, tag.as_ref(), Yaml::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, anchor, .. }) => self.add(merged(node), anchor),
                None => Err("an end without its beginning"),
            },
            Event::Alias(anchor) => {
                let mut node = self.copy(anchor)?;
                node.line = line;
                self.add(node, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::DocumentStart(_) | Event::StreamStart | Event::StreamEnd | Event::Nothing => Ok(()),
        }
    }

    fn start(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Cow<'_, Tag>>,
        what: Yaml,
    ) -> Result<(), &'static str> {
        if self.open.len() == DEPTH {
            return Err("it nests deeper than 64 levels");
        }
        self.open.push(Open { node: Node { line, tagged: is_foreign(tag), merge: false, what }, key: None, anchor });
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), &'static str> {
        if anchor > 0 {
            self.count(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match (&mut open.node.what, open.key.take()) {
            (Yaml::Map(pairs), Some(key)) => pairs.push((key, node)),
            (Yaml::Map(_), None) => open.key = Some(node),
            (Yaml::List(nodes), _) => nodes.push(node),
            (Yaml::Null | Yaml::Text(_), _) => return Err("a value inside of a text"),
        }
        Ok(())
    }

    fn copy(&mut self, anchor: usize) -> Result<Node, &'static str> {
        let node = self.anchors.remove(&anchor).ok_or("an alias to what isn't there yet")?;
        let counted = self.count(&node);
        let copy = node.clone();
        self.anchors.insert(anchor, node);
        let depth = self.open.len() + depth(&copy);
        if depth > DEPTH { Err("it nests deeper than 64 levels") } else { counted.map(|()| copy) }
    }

    fn count(&mut self, node: &Node) -> Result<(), &'static str> {
        self.copied += size(node);
        if self.copied > COPIES { Err("its aliases make it too large") } else { Ok(()) }
    }
}

/// A map with what its merge keys lead to behind its own keys, which are stronger; the first of several maps is, too.
fn merged(mut node: Node) -> Node {
    let Yaml::Map(pairs) = &mut node.what else { return node };
    if !pairs.iter().any(|(key, _)| key.merge) {
        return node;
    }
    let mut more = Vec::new();
    let mut own = Vec::new();
    for (key, value) in std::mem::take(pairs) {
        match value.what {
            Yaml::Map(pairs) if key.merge => more.extend(pairs),
            Yaml::List(nodes) if key.merge && nodes.iter().all(|node| matches!(node.what, Yaml::Map(_))) => {
                more.extend(
                    nodes
                        .into_iter()
                        .filter_map(|node| if let Yaml::Map(all) = node.what { Some(all) } else { None })
                        .flatten(),
                );
            }
            what => own.push((key, Node { what, ..value })),
        }
    }
    let text = |key: &Node| if let Yaml::Text(text) = &key.what { Some(text.clone()) } else { None };
    let mut seen: HashSet<_> = own.iter().filter_map(|(key, _)| text(key)).collect();
    more.retain(|(key, _)| text(key).is_none_or(|text| seen.insert(text)));
    own.append(&mut more);
    *pairs = own;
    node
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn is_foreign(tag: Option<&Cow<'_, Tag>>) -> bool {
    tag.is_some_and(|tag| !tag.is_yaml_core_schema())
}

fn size(node: &Node) -> usize {
    1 + match &node.what {
        Yaml::Null | Yaml::Text(_) => 0,
        Yaml::List(nodes) => nodes.iter().map(size).sum(),
        Yaml::Map(pairs) => pairs.iter().map(|(key, value)| size(key) + size(value)).sum(),
    }
}

fn depth(node: &Node) -> usize {
    match &node.what {
        Yaml::Null | Yaml::Text(_) => 0,
        Yaml::List(nodes) => 1 + nodes.iter().map(depth).max().unwrap_or(0),
        Yaml::Map(pairs) => 1 + pairs.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_text_lines_and_duplicates() {
        let documents = parse("a: 0123\nb: &x [1, ~]\na: *x\n---\n").unwrap_or_else(|trouble| panic!("{trouble:?}"));
        let Yaml::Map(pairs) = &documents[0].what else { panic!("no map: {documents:?}") };
        let lines: Vec<_> = pairs.iter().map(|(key, value)| (key.line, value.line)).collect();
        assert_eq!(lines, [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(pairs[0].1.what, Yaml::Text("0123".to_owned()));
        let Yaml::List(nodes) = &pairs[2].1.what else { panic!("no list: {pairs:?}") };
        assert_eq!(nodes[1].what, Yaml::Null);
        assert_eq!(documents[1].what, Yaml::Null);
    }

    #[test]
    fn follows_merge_keys() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: *a, y: 3}\nd:\n  <<: [*b, *a]\ne: {'<<': *a}\nf: {<<: 7}\n";
        let documents = parse(text).unwrap_or_else(|trouble| panic!("{trouble:?}"));
        let Yaml::Map(pairs) = &documents[0].what else { panic!("no map: {documents:?}") };
        let shown = |node: &Node| {
            let Yaml::Map(pairs) = &node.what else { panic!("no map: {node:?}") };
            let one = |(key, value): &(Node, Node)| match (&key.what, &value.what) {
                (Yaml::Text(key), Yaml::Text(value)) => format!("{key}={value}"),
                (key, _) => format!("{key:?}"),
            };
            pairs.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&pairs[2].1), "y=3 x=1");
        assert_eq!(shown(&pairs[3].1), "y=2 z=2 x=1");
        assert_eq!(shown(&pairs[4].1), "Text(\"<<\")", "a quoted one is a key like any other");
        assert_eq!(shown(&pairs[5].1), "<<=7", "nothing to merge");
    }

    #[test]
    fn bounds_depth_and_copies() {
        for deep in ["- ".repeat(100_000), "[".repeat(100_000), "? ".repeat(100_000)] {
            assert!(parse(&deep).is_err());
        }
        let bomb: String = (1..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
        let trouble = parse(&format!("a0: &a0 x\n{bomb}")).expect_err("too large");
        assert!(trouble.why.contains("too large"), "{trouble:?}");
    }
}
