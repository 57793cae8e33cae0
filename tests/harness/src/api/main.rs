//! `dlock-api`: compares tests/api.txt with the public names of the packages of all languages, both ways.

#![allow(clippy::print_stdout, reason = "a program that reports")]

mod c;
mod list;
mod rust;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use dlock_harness::languages::{Speakers, found};

use crate::list::{List, PACKAGES};

/// Compares tests/api.txt with the public names of every package: a listed name that doesn't exist fails, and so does
/// an existing name that isn't listed.
///
/// Prints the differences, and at the end `N passed, N failed`. One correct line of the list counts as one passed.
#[derive(Parser)]
#[command(name = "dlock-api", max_term_width = 110)]
struct Options {
    #[command(flatten)]
    speakers: Speakers,
    /// The folder of libdlock_c.so. Default: release, beside this program's own folder.
    #[arg(long, value_name = "DIR")]
    lib_dir: Option<PathBuf>,
    /// Only this package: rust, python, node, c. May be repeated.
    #[arg(long, value_name = "NAME", value_parser = PACKAGES)]
    language: Vec<String>,
    /// Prints the public names as well.
    #[arg(long)]
    names: bool,
}

/// The public names of one package, and the package's faults that don't depend on the list.
#[derive(Default)]
struct Surface {
    names: BTreeSet<String>,
    trouble: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            println!("dlock-api: {why}\n\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let path = options.speakers.tests.join("api.txt");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let list = List::parse(&text)?;
    let (mut trouble, mut wrong) = (Vec::new(), BTreeSet::new());
    for (column, package) in PACKAGES.into_iter().enumerate() {
        if !options.language.is_empty() && !options.language.iter().any(|name| name == package) {
            continue;
        }
        let surface = surface(package, options).unwrap_or_else(|why| {
            let trouble = vec![format!("its public names can't be had: {why}")];
            Surface { names: BTreeSet::new(), trouble }
        });
        println!("{package:<8}{} public names", surface.names.len());
        if options.names {
            surface.names.iter().for_each(|name| println!("  {name}"));
        }
        trouble.extend(surface.trouble.iter().map(|one| format!("{package}: {one}")));
        let (absent, unlisted) = list.compare(column, &surface.names);
        wrong.extend(absent.iter().map(|(line, _)| *line));
        // If there are no names at all, the one reason is enough.
        if !surface.names.is_empty() {
            trouble.extend(absent.iter().map(|(line, name)| format!("api.txt:{line}: {package} has no {name}")));
        }
        trouble.extend(unlisted.iter().map(|name| format!("{package}: {name} is public, and api.txt doesn't list it")));
    }
    if !trouble.is_empty() {
        println!("\nfailed");
        trouble.iter().for_each(|one| println!("  {one}"));
    }
    println!("\n{} passed, {} failed", list.lines() - wrong.len(), trouble.len());
    Ok(trouble.is_empty())
}

fn surface(package: &str, options: &Options) -> Result<Surface, String> {
    let Speakers { python, node, tests, .. } = &options.speakers;
    let scripts = tests.join("harness/src/api");
    match package {
        "rust" => rust::surface(&tests.join("..")),
        "python" => script(python, &scripts.join("surface.py")),
        "node" => script(node, &scripts.join("surface.mjs")),
        _ => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            let beside = own.parent().and_then(Path::parent).ok_or("no folder")?.join("release");
            c::surface(&tests.join("../bindings-c/include/dlock.h"), options.lib_dir.as_ref().unwrap_or(&beside))
        }
    }
}

/// Returns the output of a script: each line is a name, or `!` and a fault.
fn script(program: &Path, script: &Path) -> Result<Surface, String> {
    let text = output(Command::new(found(program)?).arg(script))?;
    let (trouble, names): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('!'));
    let trouble = trouble.iter().map(|line| line.trim_start_matches(['!', ' ']).to_owned()).collect();
    Ok(Surface { names: names.into_iter().map(str::to_owned).collect(), trouble })
}

/// Returns the output of a program that succeeds.
fn output(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|error| format!("{program}: {error}"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("{program} ended with {}: {}", done.status, said.trim_end()));
    }
    String::from_utf8(done.stdout).map_err(|error| format!("{program}: {error}"))
}
