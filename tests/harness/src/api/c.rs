//! The public names of the C library. The header has to declare exactly the functions that the library exports.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::{Surface, output};

/// The functions of a header, and all names that it defines.
#[derive(Default)]
struct Header {
    functions: BTreeSet<String>,
    names: BTreeSet<String>,
}

pub(crate) fn surface(header: &Path, folder: &Path) -> Result<Surface, String> {
    let text = std::fs::read_to_string(header).map_err(|error| format!("{}: {error}", header.display()))?;
    let Header { functions, names } = declared(&text);
    let exported = exported(folder)?;
    let unknown = exported.difference(&functions).map(|name| format!("{name} is exported, and dlock.h hasn't it"));
    let missing = functions.difference(&exported).map(|name| format!("{name} of dlock.h isn't exported"));
    let trouble = unknown.chain(missing).collect();
    Ok(Surface { names, trouble })
}

/// Returns the names that the shared library exports.
fn exported(folder: &Path) -> Result<BTreeSet<String>, String> {
    let (library, flags, mark) = if cfg!(target_os = "macos") {
        ("libdlock_c.dylib", ["-g", "-U"], "_")
    } else {
        ("libdlock_c.so", ["-D", "--defined-only"], "")
    };
    let text = output(Command::new("nm").args(flags).arg(folder.join(library)))?;
    let names = text.lines().filter_map(|line| line.split_whitespace().last());
    // A version may follow the name.
    let names = names.map(|name| name.strip_prefix(mark).unwrap_or(name)).filter_map(|name| name.split('@').next());
    Ok(names.map(str::to_owned).collect())
}

fn declared(text: &str) -> Header {
    let mut header = Header::default();
    let code = plain(&without_comments(text), &mut header.names);
    let tokens = tokens(&code);
    let mut rest = &tokens[..];
    while !rest.is_empty() {
        let (statement, after) = first_statement(rest);
        rest = after;
        if let ["typedef", body @ ..] = statement {
            typedef(body, &mut header.names);
        } else if let Some(at) = statement.iter().position(|token| *token == "(") {
            header.functions.extend(statement[..at].last().map(|name| (*name).to_owned()));
        }
    }
    header.names.extend(header.functions.iter().cloned());
    header
}

/// Returns the code without the preprocessor's lines, and without the lines for C++ only. The macros go into `names`.
fn plain(code: &str, names: &mut BTreeSet<String>) -> String {
    let (mut plain, mut of_others) = (String::new(), false);
    for line in code.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["#ifdef", "__cplusplus"] => of_others = true,
            ["#endif", ..] => of_others = false,
            // The include guard has no value.
            ["#define", name, _, ..] => drop(names.insert(name.to_owned())),
            _ if of_others || line.starts_with('#') => {}
            _ => plain += &format!("{line} "),
        }
    }
    plain
}

/// Adds the names that a typedef defines: its own, and those of its fields or constants.
fn typedef(body: &[&str], names: &mut BTreeSet<String>) {
    let Some(&own) = body.last() else { return };
    let braces = (body.iter().position(|token| *token == "{"), body.iter().rposition(|token| *token == "}"));
    if let (Some(open), Some(close)) = braces {
        let inside = &body[open + 1..close];
        if body[0] == "enum" {
            let constants = inside.split(|token| *token == ",").filter_map(<[_]>::first);
            names.extend(constants.map(|name| (*name).to_owned()));
        } else {
            let fields = inside.split(|token| matches!(*token, ";" | ",")).filter_map(<[_]>::last);
            names.extend(fields.map(|field| format!("{own}.{field}")));
        }
    }
    // The name of a function type is in brackets: `void (*name)(…)`.
    let bracketed = body.windows(3).find(|three| three[..2] == ["(", "*"]).map(|three| three[2]);
    names.insert(bracketed.unwrap_or(own).to_owned());
}

fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = [rest.find("/*"), rest.find("//")].into_iter().flatten().min() {
        code.push_str(&rest[..at]);
        let end = if rest[at..].starts_with("/*") { "*/" } else { "\n" };
        let len = rest[at + 2..].find(end).map_or(rest.len() - at, |len| 2 + len + end.len());
        code.push('\n');
        rest = &rest[at + len..];
    }
    code + rest
}

/// Splits code into words and single signs.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let is_word = |sign: char| sign.is_alphanumeric() || sign == '_';
        let word = rest.find(|sign| !is_word(sign)).unwrap_or(rest.len());
        let sign = rest.chars().next().map_or(1, char::len_utf8);
        let (token, after) = rest.split_at(word.max(sign));
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// Returns the tokens before the first `;` outside of braces, and the tokens after it.
fn first_statement<'a, 'b>(tokens: &'b [&'a str]) -> (&'b [&'a str], &'b [&'a str]) {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return (&tokens[..at], &tokens[at + 1..]),
            _ => {}
        }
    }
    (tokens, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_declares() {
        let text = "/* f(); */\n#ifndef H\n#define H\n#define MAX \"1\" // g();\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\
            typedef enum { OK = 0, BAD } status; typedef struct c c;\n\
            typedef struct {\n size_t size;\n const char *key, *token;\n} holder;\n\
            typedef void (*acquired)(void *user, status s);\nstatus take(c *client,\n  holder *h);\nconst char *name(c *);\n\
            #ifdef __cplusplus\n}\n#endif\n#endif";
        let Header { functions, names } = declared(text);
        assert_eq!(functions.iter().collect::<Vec<_>>(), ["name", "take"]);
        let wanted = "BAD MAX OK acquired c holder holder.key holder.size holder.token name status take";
        assert_eq!(names.into_iter().collect::<Vec<_>>().join(" "), wanted);
    }
}
