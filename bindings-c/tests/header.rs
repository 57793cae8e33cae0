//! `include/dlock.h` is what the Rust behind it says. `DLOCK_WRITE_HEADER=1` writes it anew.

use std::path::{Path, PathBuf};

/// In the order in which a reader needs them.
const FILES: [&str; 8] = ["error", "client", "options", "acquire", "lease", "lost", "list", "log"];

#[test]
fn header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/dlock.h");
    let made = generate(root);
    if std::env::var_os("DLOCK_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("include/dlock.h");
    let differs = committed.lines().zip(made.lines()).position(|(is, should)| is != should);
    assert!(
        committed == made,
        "dlock.h is not up to date from line {:?} on: `make header`",
        differs.map(|line| line + 1)
    );
}

#[test]
fn every_file_with_functions_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi");
    for entry in std::fs::read_dir(folder).expect("src/ffi") {
        let path: PathBuf = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a source");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(FILES.contains(&name) || !text.contains("no_mangle"), "{name}.rs has functions and is not in FILES");
    }
}

fn generate(root: &Path) -> String {
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    for (name, value) in [
        ("@major@", env!("CARGO_PKG_VERSION_MAJOR")),
        ("@minor@", env!("CARGO_PKG_VERSION_MINOR")),
        ("@patch@", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        config.after_includes = config.after_includes.map(|text| text.replace(name, value));
    }
    config.header = config.header.map(|text| text.trim().to_owned());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join(format!("src/ffi/{file}.rs")));
    }
    let mut made = Vec::new();
    builder.generate().expect("sources that cbindgen understands").write(&mut made);
    String::from_utf8(made).expect("UTF-8")
}
