//! The rule of imports: which folder of `core/src` may import which, and no circle of files.
//!
//! It reads the source as text: every path that begins with `crate`, `super` or `self`, outside tests and comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A folder, or a file beside the folders, and those that it may import. An import may skip a layer downward.
const RULES: &[(&str, &[&str])] = &[
    ("api", &["drivers", "engine", "contract", "observe", "config", "runtime"]),
    ("drivers", &["backend", "contract", "config"]),
    ("engine", &["contract", "observe", "config", "runtime", "timing"]),
    ("backend", &[]),
    ("backend/memory", &["contract", "config", "runtime", "timing"]),
    ("backend/file", &["contract", "config", "runtime", "timing"]),
    ("backend/redis", &["contract", "net", "config", "runtime", "timing"]),
    ("backend/etcd", &["contract", "net", "config", "runtime", "timing"]),
    ("backend/mysql", &["contract", "net", "config", "runtime", "timing"]),
    ("backend/zookeeper", &["contract", "net", "config", "runtime", "timing"]),
    ("contract", &["config", "runtime"]),
    ("net", &["config", "runtime", "timing"]),
    ("observe", &["runtime"]),
    ("config", &[]),
    ("runtime", &["timing"]),
    ("timing", &[]),
    ("testing", &["api", "drivers", "contract", "config", "runtime", "mutant"]),
    ("clock", &[]),
    ("mutant", &[]),
    ("error", &[]),
];

/// What every folder may import.
const GROUND: &[&str] = &["clock", "error", "mutant"];

/// The files of the tree, by their path in `core/src` without `.rs`, with their text.
type Tree = BTreeMap<String, String>;

fn tree() -> Tree {
    fn add(folder: &Path, name: &str, tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                add(&path, &format!("{name}{file}/"), tree);
            } else if let Some(stem) = file.strip_suffix(".rs") {
                tree.insert(format!("{name}{stem}"), code(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut tree = Tree::new();
    add(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut tree);
    // Modules of tests alone.
    let tested: Vec<String> = tree
        .iter()
        .flat_map(|(file, text)| {
            text.split("#[cfg(test)]\nmod ").skip(1).filter_map(move |rest| {
                let (name, _) = rest.split_once(';').filter(|(name, _)| !name.contains(char::is_whitespace))?;
                Some(format!("{}{name}", folder(file).map(|folder| format!("{folder}/")).unwrap_or_default()))
            })
        })
        .collect();
    tree.retain(|file, _| !tested.contains(file));
    tree
}

/// The text without comments and test modules.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line.split(" // ").next().unwrap_or_default(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let test_module = ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(all(test, unix))]\nmod tests {"];
    let end = test_module.iter().filter_map(|start| text.find(start)).min();
    without_inner_modules(&text[..end.unwrap_or(text.len())])
}

/// The text with `self` for the `super` of modules inside the file.
fn without_inner_modules(text: &str) -> String {
    let mut inside: Option<String> = None;
    let lines = text.lines().map(|line| {
        let indent = &line[..line.len() - line.trim_start().len()];
        if inside.as_deref() == Some(line) {
            inside = None;
        } else if inside.is_none() && line.ends_with(" {") && line.split(' ').rev().nth(2) == Some("mod") {
            inside = Some(format!("{indent}}}"));
        }
        if inside.is_some() { line.replacen("super::", "self::", 1) } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn folder(file: &str) -> Option<&str> {
    file.rsplit_once('/').map(|(folder, _)| folder)
}

/// The folder of the rules that a file belongs to.
fn place(file: &str) -> &str {
    let inside = |(folder, _): &&(&'static str, &[&str])| {
        file.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    RULES.iter().filter(inside).map(|(folder, _)| *folder).max_by_key(|folder| folder.len()).unwrap_or("lib")
}

/// The module that a file is, as names from the crate's root.
fn module(file: &str) -> Vec<&str> {
    let mut names: Vec<_> = file.split('/').collect();
    if matches!(names.last(), Some(&"mod" | &"lib")) {
        names.pop();
    }
    names
}

/// The paths that begin here: `{a, b::{c}}` is two of them.
fn expand(text: &str, so_far: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = so_far.to_vec();
    let mut at = 0;
    loop {
        let name: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += name.len();
        if name.is_empty() {
            if !text[at..].starts_with('{') {
                break;
            }
            at += 1;
            loop {
                at += text[at..].len() - text[at..].trim_start_matches([',', ' ', '\n']).len();
                if text[at..].is_empty() || text[at..].starts_with('}') {
                    return at + 1;
                }
                at += expand(&text[at..], &path, paths).max(1);
                // What follows `as`.
                at += text[at..].find([',', '}']).unwrap_or(text[at..].len());
            }
        }
        path.push(name);
        match text[at..].strip_prefix("::") {
            Some(_) => at += 2,
            None => break,
        }
    }
    paths.push(path);
    at
}

/// The files that a file imports.
fn imports(tree: &Tree, file: &str) -> BTreeSet<String> {
    let text = &tree[file];
    let here: Vec<String> = module(file).into_iter().map(str::to_owned).collect();
    let mut paths = Vec::new();
    for (start, base) in [("crate::", Vec::new()), ("self::", here.clone())] {
        for (at, _) in text.match_indices(start) {
            if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                expand(&text[at + start.len()..], &base, &mut paths);
            }
        }
    }
    for (at, _) in text.match_indices("super::") {
        if text[..at].ends_with("super::") {
            continue;
        }
        let (mut base, mut rest) = (here.clone(), &text[at..]);
        while let Some(further) = rest.strip_prefix("super::") {
            base.pop();
            rest = further;
        }
        expand(rest, &base, &mut paths);
    }
    // A file that declares modules names them without a prefix.
    for (at, _) in text.match_indices("use ") {
        let rest = &text[at + 4..];
        let first: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if file.ends_with("mod") && text.contains(&format!("mod {first};")) {
            expand(rest, &here, &mut paths);
        }
    }
    let file_of = |path: &[String]| {
        (0..=path.len()).rev().find_map(|length| {
            let name = path[..length].join("/");
            let names =
                if name.is_empty() { vec!["lib".to_owned()] } else { vec![name.clone(), format!("{name}/mod")] };
            names.into_iter().find(|name| tree.contains_key(name))
        })
    };
    paths.iter().filter_map(|path| file_of(path)).filter(|found| found != file).collect()
}

/// Everything that breaks the rule.
fn faults(tree: &Tree) -> Vec<String> {
    let all: BTreeMap<&str, BTreeSet<String>> = tree.keys().map(|file| (file.as_str(), imports(tree, file))).collect();
    let mut faults = Vec::new();
    for (file, imported) in &all {
        let from = place(file);
        let allowed = RULES.iter().find(|(folder, _)| *folder == from).map_or(&[][..], |(_, allowed)| allowed);
        for other in imported.iter().filter(|_| *file != "lib") {
            let to = place(other);
            let above = other == "lib" || folder(other) == folder(file) && other.ends_with("/mod");
            let inside = to == from && !above || file.ends_with("mod") && folder(other) == folder(file);
            if above {
                faults.push(format!("{file} imports {other}, which is above it"));
            } else if !inside && !allowed.contains(&to) && !GROUND.contains(&to) {
                faults.push(format!("{file} imports {other}: {from} may not import {to}"));
            }
        }
    }
    faults.extend(circle(&all).map(|files| format!("a circle: {}", files.join(" → "))));
    let features = tree.iter().filter(|(file, text)| text.contains("feature = \"") && !may_name_features(file, text));
    faults.extend(features.map(|(file, _)| format!("{file} names the feature of a backend")));
    faults
}

/// Returns true if no feature of a backend is named, or the file is one that may name them.
fn may_name_features(file: &str, text: &str) -> bool {
    let backends = ["memory", "file", "redis", "etcd"].map(|name| format!("feature = \"{name}\""));
    matches!(file, "lib" | "drivers" | "backend/mod" | "mutant") || !backends.iter().any(|name| text.contains(name))
}

/// A circle of files, if there is one.
fn circle(all: &BTreeMap<&str, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        file: &'a str,
        all: &'a BTreeMap<&str, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|seen| *seen == file) {
            return Some(way[at..].iter().chain([&file]).map(ToString::to_string).collect());
        }
        if done.contains(file) {
            return None;
        }
        way.push(file);
        let found = all[file].iter().find_map(|other| visit(other, all, way, done));
        way.pop();
        done.insert(file);
        found
    }
    let mut done = BTreeSet::new();
    all.keys().find_map(|file| visit(file, all, &mut Vec::new(), &mut done))
}

#[test]
fn imports_point_downward_and_no_files_form_a_circle() {
    let tree = tree();
    assert!(tree.len() > 60, "the source wasn't found: {} files", tree.len());
    let known = tree.keys().filter(|file| *file != "lib").all(|file| place(file) != "lib");
    assert!(known, "a file is in no folder of the rules: {:?}", tree.keys());
    let faults = faults(&tree);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_deliberate_fault_is_found() {
    let cases = [
        ("runtime/op", "use crate::engine::tenure::Lease;", "runtime may not import engine"),
        ("config/schema", "fn f() { crate::drivers::connect(); }", "config may not import drivers"),
        ("backend/redis/connection", "use crate::backend::etcd::DRIVER;", "backend/redis may not import backend/etcd"),
        ("engine/gate", "use super::{shared, tenure::{Lease, State}};", "a circle"),
        ("contract/claim", "use crate::contract::Driver;", "above it"),
        ("contract/claim", "use super::Driver;", "above it"),
        ("net/connection", "#[cfg(feature = \"etcd\")] fn f() {}", "names the feature"),
    ];
    for (file, line, fault) in cases {
        let mut tree = tree();
        tree.get_mut(file).unwrap_or_else(|| panic!("there is no {file}")).push_str(&format!("\n{line}\n"));
        let faults = faults(&tree);
        assert!(faults.iter().any(|found| found.contains(fault)), "{line} in {file}: {faults:?}");
    }
}
