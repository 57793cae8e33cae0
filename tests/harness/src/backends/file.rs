//! The file backend: a directory of lock files. Its server is the kernel.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::{Cases, Deployed, Deployment, Fault, ServerFault, TestBackend, flat};

/// The file backend.
#[derive(Debug)]
pub struct Backend;

/// A folder in which each case has a directory.
struct Folder(PathBuf);

/// A directory of one run of the soak test.
struct Directory(TempDir);

impl TestBackend for Backend {
    fn name(&self) -> &'static str {
        "file"
    }

    fn outside(&self) -> &'static [&'static str] {
        &["outside", "files", "longer", "breaks", "names"]
    }

    fn cases(&self, folder: &Path) -> Result<Box<dyn Cases>, String> {
        Ok(Box::new(Folder(folder.to_owned())))
    }

    fn deployments(&self) -> &'static [Deployment] {
        &[Deployment { word: "file", start: directory }]
    }

    fn faults(&self) -> &'static [Fault] {
        &[]
    }
}

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

impl Cases for Folder {
    fn url(&self, case: &str) -> Result<String, String> {
        Ok(url(&self.0.join(flat(case))))
    }

    fn act(&self, case: &str, words: &[&str]) -> Result<(), String> {
        let directory = self.0.join(flat(case));
        let path = |key: &str| directory.join(format!("{key}.lock"));
        let done = match words {
            ["remove", key] => std::fs::remove_file(path(key)),
            ["replace", key] => std::fs::remove_file(path(key)).and_then(|()| std::fs::write(path(key), "")),
            ["wipe"] => std::fs::remove_dir_all(directory),
            other => return Err(format!("a directory of lock files can't {other:?}")),
        };
        done.map_err(|error| error.to_string())
    }
}

fn directory() -> Result<Arc<dyn Deployed>, String> {
    let folder = tempfile::Builder::new().prefix("dlock-soak-locks-").tempdir().map_err(|error| error.to_string())?;
    Ok(Arc::new(Directory(folder)))
}

impl Deployed for Directory {
    fn addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn url(&self, _: &[SocketAddr]) -> String {
        url(self.0.path())
    }

    fn faults(self: Arc<Self>) -> Vec<Box<dyn ServerFault>> {
        Vec::new()
    }
}
