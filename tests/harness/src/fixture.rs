//! What the suite knows of each driver beyond the driver itself: how a fresh one is reached, and what can be done to it
//! from outside.

use std::path::{Path, PathBuf};

use dlock::backend::Driver;

/// What the suite has to know of one driver.
struct Kit {
    driver: &'static str,
    /// The URL of a place that nobody has used, by the job's folder and the case's name.
    url: fn(&Path, &str) -> String,
    /// Does `server VERB KEY` to that place.
    server: fn(&Path, &str, &[&str]) -> Result<(), String>,
    /// What its `server` steps add to the words of [`OF_BACKENDS`](crate::case::OF_BACKENDS).
    words: &'static [&'static str],
}

const KITS: &[Kit] = &[
    Kit {
        driver: "memory",
        url: |folder, case| format!("memory://{}-{case}", folder.file_name().unwrap_or_default().to_string_lossy()),
        server: |_, _, words| Err(format!("nothing outside can do {words:?} to memory")),
        words: &[],
    },
    Kit {
        driver: "file",
        url: |folder, case| format!("file://{}", folder.join(case).display()),
        server: files,
        words: &["files"],
    },
];

/// One driver under test by one language.
pub(crate) struct Fixture {
    driver: &'static Driver,
    kit: &'static Kit,
    folder: PathBuf,
}

impl Fixture {
    pub(crate) fn new(driver: &'static Driver, folder: &Path) -> Result<Self, String> {
        let kit = KITS.iter().find(|kit| kit.driver == driver.name);
        let kit = kit.ok_or(format!("the driver {} has no kit in tests/harness/src/fixture.rs", driver.name))?;
        Ok(Self { driver, kit, folder: folder.to_owned() })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.driver.name
    }

    /// The URL for a case; case names are made of letters, digits, `-` and one `/`.
    pub(crate) fn url(&self, case: &str) -> String {
        (self.kit.url)(&self.folder, &place(case))
    }

    pub(crate) fn server(&self, case: &str, words: &[&str]) -> Result<(), String> {
        (self.kit.server)(&self.folder, &place(case), words)
    }

    /// Whether it is so: a word of [`OF_BACKENDS`](crate::case::OF_BACKENDS).
    pub(crate) fn can(&self, word: &str) -> bool {
        let can = (self.driver.capability)();
        match word {
            "fence" => can.fence,
            "ttl" => can.ttl,
            "fifo" => can.fifo,
            "shared" => can.shared,
            "permits" => can.permits,
            "handoff" => can.handoff,
            "processes" => can.processes,
            "fork" => can.fork,
            "local" => can.local,
            other => self.kit.words.contains(&other),
        }
    }
}

fn place(case: &str) -> String {
    case.replace('/', "-")
}

/// What others may do to a directory of lock files.
fn files(folder: &Path, case: &str, words: &[&str]) -> Result<(), String> {
    let dir = folder.join(case);
    let done = match words {
        ["remove", key] => std::fs::remove_file(dir.join(format!("{key}.lock"))),
        ["replace", key] => {
            let path = dir.join(format!("{key}.lock"));
            std::fs::remove_file(&path).and_then(|()| std::fs::write(&path, ""))
        }
        ["wipe"] => std::fs::remove_dir_all(&dir),
        other => return Err(format!("a directory of lock files can't {other:?}")),
    };
    done.map_err(|error| error.to_string())
}
