//! The public names of the crate, from the pages of rustdoc: items, methods, fields and variants of its own, without
//! those that come from traits.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::{Surface, output};

/// The beginnings of the anchors of members.
const MEMBERS: [&str; 5] = ["method.", "tymethod.", "variant.", "structfield.", "associatedconstant."];
/// The beginnings of the sections with members that come from traits.
const FOREIGN: [&str; 3] =
    [r#"id="trait-implementations""#, r#"id="synthetic-implementations""#, r#"id="implementors""#];

/// Makes rustdoc write its pages beside this program, and reads them.
pub(crate) fn surface(root: &Path) -> Result<Surface, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = own.parent().and_then(Path::parent).ok_or("no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["doc", "--quiet", "--no-deps", "--package", "dlock-core", "--target-dir"]).arg(target);
    output(command.current_dir(root))?;
    let pages = target.join("doc/dlock");
    let read = |page: &str| {
        let path = pages.join(page);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let index = read("index.html")?;
    let exported: BTreeSet<_> = between(&index, r#"id="reexport."#, "\"").collect();
    let mut names = BTreeSet::new();
    for link in between(&read("all.html")?, "<li><a href=\"", "</a>") {
        // This is a link within the page.
        if link.starts_with('#') {
            continue;
        }
        let (page, item) = link.split_once("\">").ok_or("all.html is not what it was: see rust.rs")?;
        // An item that is exported at the top is listed by that name.
        let last = item.rsplit("::").next().unwrap_or(item);
        let item = if exported.contains(last) { last } else { item };
        // An alias has no members of its own.
        if !page.rsplit('/').next().is_some_and(|page| page.starts_with("type.")) {
            names.extend(members(&read(page)?).map(|member| format!("{item}::{member}")));
        }
        names.insert(item.to_owned());
    }
    Ok(Surface { names, ..Surface::default() })
}

/// Returns an item's own members from its page.
fn members(page: &str) -> impl Iterator<Item = &str> {
    let end = FOREIGN.iter().filter_map(|mark| page.find(mark)).min().unwrap_or(page.len());
    let anchors = between(&page[..end], r#"id=""#, "\"");
    // The anchors of a variant's fields contain the variant's name: `variant.Granted.field.ttl`.
    anchors
        .filter_map(|anchor| MEMBERS.iter().find_map(|start| anchor.strip_prefix(start)))
        .filter(|name| !name.contains('.'))
}

/// Returns every text between `start` and `end`.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_members_only() {
        let page = r#"<section id="method.wait"><section id="variant.Kept"><span id="variant.Kept.field.ttl">
            <h2 id="trait-implementations"><section id="method.clone">"#;
        assert_eq!(members(page).collect::<Vec<_>>(), ["wait", "Kept"]);
    }
}
