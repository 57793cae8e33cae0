//! Tests of environment, YAML and URL together, with made-up schemas.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::sample::schemas;
use super::{Config, Settings, Value};
use crate::error::{Error, Kind, Result};

fn load(environment: &[(&str, &str)], yaml: Option<&str>, named: bool) -> Result<Settings> {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("config.yaml");
    if let Some(yaml) = yaml {
        write(&path, yaml, 0o644);
    }
    let variables = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load_of(schemas(), variables, directory.path(), named.then_some(Path::new("config.yaml")))
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("mode set");
}

#[track_caller]
fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused<T>(result: Result<T>, parts: &[&str]) -> Error {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), Kind::Invalid);
    for part in parts {
        assert!(error.to_string().contains(part), "{error} doesn't have {part}");
    }
    error
}

const ON: (&str, &str) = ("DLOCK_DEPOT_ENABLED", "true");

#[test]
fn environment_alone_describes_a_service() {
    let more = [("DLOCK_DEPOT_ADDRS", "a:1,b:2"), ("DLOCK_DEPOT_PASSWORD", "pw"), ("DLOCK_DEPOT_DB", "")];
    let settings = ok(load(&[&[ON][..], &more].concat(), None, false));
    let (name, config) = ok(settings.default_service());
    assert_eq!((name.as_str(), config.values().text("password")), ("depot", Some("pw")));
    assert_eq!(config.values().list("addrs"), Some(&["a:1".to_owned(), "b:2".to_owned()][..]));
    assert_eq!(config.values().count("db"), None, "set to nothing is not set");
}

#[test]
fn environment_beats_yaml_key_by_key() {
    let yaml = "depot:\n  enabled: true\n  db: 3\n  password: 0123\n  addrs: [a, b]\n";
    let config = ok(ok(load(&[("DLOCK_DEPOT_DB", "4")], Some(yaml), false)).service("depot"));
    assert_eq!((config.values().count("db"), config.values().text("password")), (Some(4), Some("0123")));
    let off = ok(load(&[("DLOCK_DEPOT_ENABLED", "0")], Some(yaml), false));
    assert!(off.names().is_empty());
    for yaml in ["depot:\n  db: 3\n", "depot:\n  enabled: false\n  db: 3\n"] {
        let config = ok(ok(load(&[ON], Some(yaml), false)).service("depot"));
        assert_eq!(config.values().count("db"), Some(3), "switched on by the environment: {yaml}");
    }
}

#[test]
fn unknown_variables() {
    refused(load(&[("DLOCK_DEPOT_ADRS", "a")], None, false), &["DLOCK_DEPOT_ADRS", "did you mean DLOCK_DEPOT_ADDRS?"]);
    refused(load(&[("DLOCK_DEPOT_addrs", "a")], None, false), &["isn't known"]);
    refused(load(&[("DLOCK_DEPOTT_ENABLED", "true")], None, false), &["did you mean depot?", "depot, shelf"]);
    refused(load(&[("DLOCK_FILE_ENABLED", "true")], None, false), &["can always be used"]);
    refused(load(&[("DLOCK_DEPOT_ENABLED", "yes")], None, false), &["true or false"]);
    ok(load(&[("DLOCK_OTHER_ENABLED", "0"), ("DLOCK_WHATEVER", "x"), ("DLOCK_DEPOT2_X", "x")], None, false));
    let secret = refused(load(&[("DLOCK_DEPOT_DIAL_TIMEOUT", "5x")], None, false), &["\"5x\"", "ms, s, m or h"]);
    assert_eq!(secret.backend(), Some("depot"));
}

#[test]
fn the_default_of_several_has_to_be_named() {
    let both = [ON, ("DLOCK_SHELF_ENABLED", "1")];
    refused(ok(load(&both, None, false)).default_service(), &["depot, shelf", "DLOCK_DEFAULT"]);
    let chosen = ok(load(&[&both[..], &[("DLOCK_DEFAULT", "shelf")]].concat(), None, false));
    assert_eq!(ok(chosen.default_service()).0, "shelf");
    let wrong = ok(load(&[ON, ("DLOCK_DEFAULT", "shelf")], None, false));
    refused(wrong.default_service(), &["DLOCK_DEFAULT", "DLOCK_SHELF_ENABLED=true", "depot"]);
    refused(wrong.service("dept"), &["did you mean depot?"]);
}

#[test]
fn a_url_replaces_all_services() {
    let settings = ok(load(&[ON, ("DLOCK_URL", "shelf://h?mode=table")], None, false));
    let (name, config) = ok(settings.default_service());
    assert_eq!((name.as_str(), config.values().text("mode")), ("shelf", Some("table")));
    assert_eq!(settings.names(), ["shelf"]);
    assert!(settings.notes().iter().any(|note| note.contains("DLOCK_DEPOT_*")), "{:?}", settings.notes());
    refused(settings.service("depot"), &["unset DLOCK_URL"]);
    let contrary = ok(load(&[("DLOCK_URL", "shelf://h"), ("DLOCK_DEFAULT", "depot")], None, false));
    refused(contrary.default_service(), &["DLOCK_URL", "DLOCK_DEFAULT"]);
    let error = refused(load(&[("DLOCK_URL", "depot://me:hunter2@h:x")], None, false), &["DLOCK_URL", "me:***@"]);
    assert!(!error.to_string().contains("hunter2"));
    let yaml = "shelf: {enabled: true}";
    let argument = ok(load(&[("DLOCK_URL", "depot://h")], Some(yaml), true));
    assert_eq!(ok(argument.default_service()).0, "shelf", "an argument is stronger than the environment");
}

#[test]
fn a_named_file_is_strict() {
    let cases = [
        ("depot:\n  enabled: true\n  adrs: [a]\n", "config.yaml:3: depot has no key \"adrs\" (did you mean addrs?)"),
        ("depott:\n  enabled: true\n", "config.yaml:1: there is no block \"depott\" (did you mean depot?)"),
        ("depot:\n  enabled: true\n  db: many\n", "config.yaml:3: depot.db: \"many\""),
        ("depot:\n  enabled: true\n  dial_timeout: 5 days\n", "config.yaml:3: depot.dial_timeout"),
        ("depot:\n  enabled: maybe\n", "config.yaml:2: depot.enabled: write true or false"),
        ("depot:\n  enabled: true\n  enabled: true\n", "config.yaml:3: the key \"enabled\" stands twice"),
        ("depot: {enabled: true}\ndepot: {}\n", "config.yaml:2: the key \"depot\" stands twice"),
        ("depot:\n  enabled: true\n  db: {a: b}\n", "config.yaml:3: depot.db: a value stands here"),
        ("depot:\n  enabled: true\n  addrs: [[a]]\n", "config.yaml:3: depot.addrs: every entry"),
        ("depot:\n  enabled: true\n  db: !env X\n", "config.yaml:3: depot.db: tags"),
        ("depot: 7\n", "config.yaml:1: the block depot has no keys"),
        ("- depot\n", "config.yaml:1: the file has no blocks"),
        ("depot:\n  db: 7\n", "config.yaml:1: the block depot doesn't say whether it is enabled"),
        ("depot: [\n", "config.yaml:2: this isn't YAML"),
        ("{}\n---\n{}\n", "a second document"),
        ("depot:\n  enabled: true\n  cert: /c\n", "needs the option key too"),
    ];
    for (yaml, part) in cases {
        refused(load(&[], Some(yaml), true), &[part]);
    }
    refused(load(&[], None, true), &["config.yaml can't be read"]);
    refused(load(&[("DLOCK_CONFIG", "other.yaml")], None, false), &["other.yaml", "DLOCK_CONFIG"]);
    let hidden =
        refused(load(&[], Some("depot:\n  enabled: true\n  password: [hunter2]\n"), true), &["depot.password"]);
    assert!(!hidden.to_string().contains("hunter2"));
    assert!(ok(load(&[], Some(""), true)).names().is_empty());
}

#[test]
fn a_file_that_happens_to_be_there_may_be_the_applications() {
    for yaml in [
        "depot:\n  host: theirs\nserver: &x {port: 1}\nserver: *x\n",
        "depot: theirs\n",
        "depot:\n  enabled: auto\n  host: theirs\n",
        "{{ template }}: [",
        "- a\n",
        "",
        "depot:\n  enabled: false\n  host: theirs\n",
    ] {
        assert!(ok(load(&[], Some(yaml), false)).names().is_empty(), "{yaml}");
    }
    let beside = ok(load(&[ON], Some("depot:\n  host: theirs\n"), false));
    assert_eq!(beside.notes().len(), 1, "{:?}", beside.notes());
    refused(load(&[], Some("depot:\n  enabled: true\n  host: ours\n"), false), &["config.yaml:3", "\"host\""]);
    refused(load(&[], Some("depot:\n  enabled: true\ndepot:\n  db: 1\n  enabled: true\n"), false), &["a second block"]);
}

#[test]
fn the_first_file_with_an_enabled_block_is_taken() {
    let directory = TempDir::new().expect("a directory");
    fs::create_dir(directory.path().join("config")).expect("a directory");
    write(&directory.path().join("config.yaml"), "server: {}", 0o644);
    write(&directory.path().join("config/config.yaml"), "shelf: {enabled: true}", 0o644);
    let names = || ok(Settings::load_of(schemas(), [], directory.path(), None)).names();
    assert_eq!(names(), ["shelf"]);
    write(&directory.path().join("config.yaml"), "depot: {enabled: true}", 0o644);
    assert_eq!(names(), ["depot"]);
}

#[test]
fn urls_and_typed_options_are_checked() {
    let cases = [
        ("depot://me:hunter2@h:1?password=hunter2", "\"password\" can't be a parameter"),
        ("depot://me:@a:hunter2/@h", "an @ behind the hosts"),
        ("depot://me:hunter2@h:1?prefx=a", "did you mean prefix?"),
        ("depot://me:hunter2@h:1?dial_timeout=hunter", "isn't a duration"),
        ("depo://me:hunter2@h", "did you mean depot?"),
        ("me:hunter2@h", "no scheme"),
        ("depots://h?tls=false", "means TLS"),
        ("depot://h?ca=/x", "write depots://"),
    ];
    for (url, part) in cases {
        let error = refused(Config::parse(schemas(), url), &[part]);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let typed = |name: &str, value: Value| Config::typed(schemas(), "depot", [(name.to_owned(), value)]);
    refused(typed("adrs", Value::List(Vec::new())), &["did you mean addrs?"]);
    refused(typed("ca", Value::Text("-----BEGIN CERTIFICATE".to_owned())), &["path of a PEM file"]);
    let error = refused(typed("password", Value::List(vec!["hunter2".to_owned()])), &["password"]);
    assert!(!error.to_string().contains("hunter2"));
    refused(Config::typed(schemas(), "dept", []), &["did you mean depot?"]);
}

#[test]
fn a_service_that_is_left_out_of_the_build_is_named_with_its_feature() {
    let few: super::schema::Schemas = Box::leak(Box::new([&super::sample::DEPOT]));
    let said = ["no service redis", "it has: depot", "feature redis"];
    refused(Config::parse(few, "redis://h"), &said);
    refused(Config::parse(few, "rediss://me:hunter2@h"), &said);
    refused(Config::typed(few, "redis", []), &said);
    let directory = TempDir::new().expect("a directory");
    let load = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Settings::load_of(few, variables, directory.path(), None)
    };
    refused(load(&[("DLOCK_REDIS_ENABLED", "true")]), &said);
    refused(load(&[("DLOCK_REDIS_ADDRS", "h:1")]), &said);
    refused(load(&[("DLOCK_URL", "redis://h")]), &said);
    refused(ok(load(&[])).service("redis"), &said);
    write(&directory.path().join("config.yaml"), "redis: {enabled: true}", 0o644);
    refused(load(&[]), &said);
    assert!(ok(load(&[("DLOCK_REDIS_ENABLED", "false"), ("DLOCK_REDIS_ADDRS", "h:1")])).names().is_empty());
}
