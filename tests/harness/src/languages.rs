//! The languages, and the commands that start a program of the tests in each of them.

use std::path::{Path, PathBuf};

/// The names of all languages. The blocking Python API and the one for asyncio count as two.
pub const LANGUAGES: [&str; 5] = ["rust", "python", "asyncio", "node", "c"];

/// The places of the other languages' programs.
#[derive(Clone, Debug, clap::Args)]
pub struct Speakers {
    /// The Python that has dlock installed.
    #[arg(long, value_name = "PATH", default_value = ".venv/bin/python")]
    pub python: PathBuf,
    /// The Node that the addon was built for.
    #[arg(long, value_name = "PATH", default_value = "node")]
    pub node: PathBuf,
    /// The folder of the C programs, run and worker.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/c"))]
    pub c_dir: PathBuf,
    /// The folder of tests.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    pub tests: PathBuf,
}

impl Speakers {
    /// Returns the words that start `tests/run/PROGRAM.*` in a language. For Rust they are this program itself and
    /// `as_rust`.
    pub fn command(&self, language: &str, program: &str, as_rust: &str) -> Result<Vec<PathBuf>, String> {
        let script = |ending: &str| {
            let path = self.tests.join("run").join(program).with_extension(ending);
            path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(match language {
            "rust" => vec![std::env::current_exe().map_err(|error| error.to_string())?, as_rust.into()],
            "python" => vec![found(&self.python)?, script("py")?, "sync".into()],
            "asyncio" => vec![found(&self.python)?, script("py")?, "asyncio".into()],
            "node" => vec![found(&self.node)?, script("mjs")?],
            "c" => vec![found(&self.c_dir.join(program))?],
            _ => return Err(format!("there is no language {language}; there are: {}", LANGUAGES.join(", "))),
        })
    }
}

/// Returns the absolute path of a program, so that every folder finds the same one. The path is not canonicalized,
/// because Python finds its packages by the path of its call. The system looks up a bare name.
pub fn found(program: &Path) -> Result<PathBuf, String> {
    if program.components().count() == 1 {
        return Ok(program.to_owned());
    }
    std::path::absolute(program).map_err(|error| format!("{}: {error}", program.display()))
}
