//! Configuration through its public face: the embedded default, the local services, and what holds for any input. One
//! file, although it is long: every test sets up the same environment, folder and files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use dlock::config::{Settings, Value, Values, duration, host_port, join_host};
use dlock::drivers::DRIVERS;
use dlock::{Config, Kind};
use proptest::prelude::*;
use tempfile::TempDir;

fn load(environment: &[(&str, &str)]) -> dlock::Result<Settings> {
    let directory = TempDir::new().expect("a directory");
    let variables = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Settings::load(variables, directory.path(), None)
}

fn settings_of(text: &[u8], named: bool) -> dlock::Result<Settings> {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("config.yaml");
    fs::write(&path, text).expect("written");
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("mode set");
    Settings::load([], directory.path(), named.then_some(Path::new("config.yaml")))
}

#[cfg(all(unix, feature = "file"))]
#[test]
fn nothing_configured_is_the_embedded_default() {
    let settings = load(&[("PATH", "/bin"), ("DLOCK_URL", "")]).expect("settings");
    let (name, config) = settings.default_service().expect("a default");
    assert_eq!((name.as_str(), config.url().as_str()), ("file", "file://"));
    assert!(settings.names().is_empty() && settings.notes().is_empty());
    assert_eq!(config, Config::from_url("file://").expect("a URL"));
    assert_eq!((config.prefix(), config.connect_timeout()), (None, Duration::from_secs(5)));
}

#[cfg(all(unix, feature = "file"))]
#[test]
fn the_directory_of_the_file_service_is_a_variable() {
    let settings = load(&[("DLOCK_FILE_DIR", "/srv/locks")]).expect("settings");
    let expected = Config::from_url("file:///srv/locks").expect("a URL");
    assert_eq!(settings.default_service().expect("a default").1, expected);
    assert_eq!(settings.service("file").expect("always there"), expected);
    let error = load(&[("DLOCK_FILE_DIRR", "/x")]).expect_err("no such variable");
    assert!(error.to_string().contains("DLOCK_FILE_DIR"), "{error}");
}

/// One way to configure, and what it leads to: a default service, or an error that has all of these parts.
struct Way {
    environment: Vec<(&'static str, &'static str)>,
    /// The text and the mode of config.yaml.
    yaml: Option<(&'static str, u32)>,
    leads: Result<&'static str, &'static [&'static str]>,
}

fn yaml(text: &'static str, mode: u32, leads: Result<&'static str, &'static [&'static str]>) -> Way {
    Way { environment: Vec::new(), yaml: Some((text, mode)), leads }
}

fn variables(
    environment: &[(&'static str, &'static str)],
    leads: Result<&'static str, &'static [&'static str]>,
) -> Way {
    Way { environment: environment.to_vec(), yaml: None, leads }
}

#[track_caller]
fn try_all(ways: impl IntoIterator<Item = Way>) {
    for Way { environment, yaml, leads } in ways {
        let directory = TempDir::new().expect("a directory");
        if let Some((text, mode)) = yaml {
            let path = directory.path().join("config.yaml");
            fs::write(&path, text).expect("written");
            #[cfg(unix)]
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("mode set");
            #[cfg(not(unix))]
            let _ = mode;
        }
        let given = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let settings = Settings::load(given, directory.path(), None);
        let found = settings.and_then(|settings| settings.default_service()).map(|(name, _)| name);
        let way = format!("{environment:?} {yaml:?}");
        match (leads, found) {
            (Ok(wanted), Ok(found)) => assert_eq!(found, wanted, "{way}"),
            (Ok(wanted), Err(error)) => panic!("{way}: not {wanted}: {error}"),
            (Err(parts), Ok(found)) => panic!("{way}: led to {found} in silence, not to an error with {parts:?}"),
            (Err(parts), Err(error)) => {
                assert_eq!(error.kind(), Kind::Invalid, "{way}: {error}");
                for part in parts {
                    assert!(error.to_string().contains(part), "{way}: {error} doesn't have {part}");
                }
            }
        }
    }
}

#[cfg(all(unix, feature = "file", feature = "redis", feature = "etcd"))]
#[test]
fn a_file_nobody_named_is_never_passed_over_in_silence() {
    const ON: &str = "redis:\n  enabled: true\n  addrs: [r1:6379]\n";
    let mut ways = Vec::new();
    for mode in [0o664, 0o646, 0o666, 0o620] {
        ways.push(yaml(ON, mode, Err(&["config.yaml:1", "redis", "chmod go-w", "DLOCK_CONFIG", "DLOCK_URL"])));
        // What enables nothing of ours may be written by anybody.
        ways.push(yaml("redis: {enabled: false, addrs: [r1]}\n", mode, Ok("file")));
        ways.push(yaml("redis: {host: theirs}\nserver: {enabled: true}\n", mode, Ok("file")));
    }
    for (word, on) in
        [("true", true), ("True", true), ("yes", true), ("Yes", true), ("on", true), ("ON", true), ("1", true)]
            .into_iter()
            .chain([("false", false), ("no", false), ("No", false), ("off", false), ("Off", false), ("0", false)])
    {
        for quote in ["", "'", "\""] {
            let text = format!("etcd:\n  enabled: {quote}{word}{quote}\n  endpoints: [e1:2379]\n");
            ways.push(yaml(text.leak(), 0o644, Ok(if on { "etcd" } else { "file" })));
        }
    }
    ways.extend([
        // Not a boolean, but nothing except keys of ours beside it.
        yaml(
            "redis:\n  enabled: ture\n  addrs: [r1]\n",
            0o644,
            Err(&["config.yaml:2", "redis.enabled", "true or false"]),
        ),
        yaml("redis:\n  addrs: [r1]\n  enabled: ${X}\n", 0o644, Err(&["config.yaml:3", "redis.enabled"])),
        yaml("redis:\n  enabled: [true]\n", 0o644, Err(&["config.yaml:2", "redis.enabled"])),
        yaml("redis:\n  enabled: auto\n  host: theirs\n", 0o644, Ok("file")),
        yaml("redis:\n  addrs: [r1]\n", 0o644, Ok("file")),
        yaml("redis:\n  enabled: true\n  tls: yes\n", 0o644, Ok("redis")),
        yaml("redis:\n  enabled: true\n  tls: perhaps\n", 0o644, Err(&["config.yaml:3", "redis.tls"])),
        yaml("redis:\n  enabled: true\n  adrs: [r1]\n", 0o644, Err(&["config.yaml:3", "did you mean addrs?"])),
        // It can't be parsed.
        yaml(
            "redis:\n\tenabled: true\n\taddrs: [r1:6379]\n",
            0o644,
            Err(&["config.yaml:2", "names redis", "DLOCK_CONFIG"]),
        ),
        yaml("a: [\nredis:\n  enabled: true\n", 0o644, Err(&["config.yaml:", "line 2 names redis"])),
        yaml("a: [\n'etcd' : {enabled: true}\n", 0o644, Err(&["line 2 names etcd"])),
        yaml("{\"etcd\":{\"enabled\":true}\n", 0o644, Err(&["line 1 names etcd"])),
        yaml("mysql:\n\tenabled: true\n", 0o644, Err(&["line 1 names mysql"])),
        yaml("b: {{ template }}: [\n", 0o644, Ok("file")),
        yaml("url: [redis://h:1\n# redis:\nmy-redis:\nredis.host: 7\npredis:\n", 0o644, Ok("file")),
        // Merge keys, a second document, a name that stands twice.
        yaml("b: &b {enabled: yes, addrs: [r1]}\nredis:\n  <<: *b\n  db: 3\n", 0o644, Ok("redis")),
        yaml("b: &b {enabled: true}\nc: &c {enabled: false, db: 1}\nredis: {<<: [*b, *c]}\n", 0o644, Ok("redis")),
        yaml("b: &b {redis: {enabled: true}}\n<<: *b\n", 0o644, Ok("redis")),
        yaml("a: 1\n---\nredis: {enabled: true}\n", 0o644, Ok("redis")),
        yaml(
            "redis: {enabled: false}\n---\nredis: {enabled: true}\nredis: {enabled: true}\n",
            0o644,
            Err(&["second block"]),
        ),
        yaml("mysql:\n  enabled: on\n", 0o644, Ok("mysql")),
        yaml("zookeeper: {enabled: false}\nmysql: {host: theirs}\n", 0o644, Ok("file")),
    ]);
    try_all(ways);
}

#[cfg(all(unix, feature = "file", feature = "redis", feature = "etcd"))]
#[test]
fn variables_are_never_passed_over_in_silence() {
    let unswitched: &[&str] = &["DLOCK_REDIS_ADDRS", "DLOCK_REDIS_ENABLED=true", "DLOCK_REDIS_ENABLED=false"];
    let addrs = ("DLOCK_REDIS_ADDRS", "r1:6379");
    let mut ways = vec![
        variables(&[addrs], Err(unswitched)),
        variables(&[addrs, ("DLOCK_REDIS_ENABLED", "")], Err(unswitched)),
        variables(&[addrs, ("DLOCK_ETCD_ENABLED", "true")], Err(unswitched)),
        variables(&[addrs, ("DLOCK_DEFAULT", "memory")], Err(unswitched)),
        variables(&[addrs, ("DLOCK_REDIS_ENABLED", "true")], Ok("redis")),
        variables(&[addrs, ("DLOCK_REDIS_ENABLED", "1")], Ok("redis")),
        variables(&[addrs, ("DLOCK_REDIS_ENABLED", "false")], Ok("file")),
        variables(&[addrs, ("DLOCK_REDIS_ENABLED", "yes")], Err(&["DLOCK_REDIS_ENABLED", "true or false"])),
        variables(&[("DLOCK_REDIS_ADDRS", "")], Ok("file")),
        variables(&[("DLOCK_REDIS_ADRS", "r1")], Err(&["DLOCK_REDIS_ADRS", "did you mean DLOCK_REDIS_ADDRS?"])),
        variables(
            &[("DLOCK_MYSQL_HOST", "m1")],
            Err(&["DLOCK_MYSQL_HOST", "DLOCK_MYSQL_ENABLED=true", "DLOCK_MYSQL_ENABLED=false"]),
        ),
        variables(&[("DLOCK_MYSQL_ENABLED", "true"), ("DLOCK_MYSQL_HOST", "m1")], Ok("mysql")),
        variables(&[("DLOCK_MYSQL_ENABLED", "false"), ("DLOCK_MYSQL_HOST", "m1")], Ok("file")),
        variables(&[("DLOCK_ZOOKEEPER_ENABLED", "true")], Ok("zookeeper")),
        variables(
            &[("DLOCK_ZOOKEEPER_SERVERS", "z1")],
            Err(&["DLOCK_ZOOKEEPER_SERVERS", "DLOCK_ZOOKEEPER_ENABLED=true"]),
        ),
        variables(&[("DLOCK_URI", "redis://r1")], Err(&["DLOCK_URI", "did you mean DLOCK_URL?"])),
        variables(&[("DLOCK_CONFG", "my.yaml")], Err(&["DLOCK_CONFG", "did you mean DLOCK_CONFIG?"])),
        variables(&[("DLOCK_SOMETHING", "theirs"), ("DLOCK_LIB_DIR", "/x")], Ok("file")),
        // DLOCK_URL is stronger than all blocks.
        variables(&[addrs, ("DLOCK_MYSQL_HOST", "m1"), ("DLOCK_URL", "etcd://e1")], Ok("etcd")),
    ];
    let with = |text, mode, environment: &[(&'static str, &'static str)], leads| Way {
        environment: environment.to_vec(),
        yaml: Some((text, mode)),
        leads,
    };
    let on = "redis: {enabled: true}\n";
    let tab = "redis:\n\tenabled: true\n";
    ways.extend([
        with(on, 0o644, &[addrs], Ok("redis")),
        with("redis: {enabled: false}\n", 0o644, &[addrs], Err(unswitched)),
        with(on, 0o644, &[("DLOCK_REDIS_ENABLED", "false")], Ok("file")),
        with(on, 0o664, &[("DLOCK_REDIS_ENABLED", "false")], Ok("file")),
        with(on, 0o664, &[("DLOCK_REDIS_ENABLED", "true")], Err(&["config.yaml:1", "chmod go-w"])),
        with(
            "redis: {addrs: [r9]}\n",
            0o664,
            &[("DLOCK_REDIS_ENABLED", "true")],
            Err(&["config.yaml:1", "chmod go-w"]),
        ),
        with("redis: {host: theirs}\n", 0o664, &[("DLOCK_REDIS_ENABLED", "true")], Ok("redis")),
        with(on, 0o664, &[("DLOCK_URL", "etcd://e1")], Ok("etcd")),
        with(tab, 0o644, &[("DLOCK_URL", "etcd://e1")], Ok("etcd")),
        with(tab, 0o644, &[("DLOCK_REDIS_ENABLED", "false")], Ok("file")),
        with(tab, 0o644, &[("DLOCK_REDIS_ENABLED", "true")], Err(&["config.yaml:2", "names redis"])),
        with("mysql: {enabled: true}\n", 0o644, &[("DLOCK_MYSQL_ENABLED", "false")], Ok("file")),
        // A file that was named is trusted as it is.
        with(on, 0o664, &[("DLOCK_CONFIG", "config.yaml")], Ok("redis")),
        with(tab, 0o644, &[("DLOCK_CONFIG", "config.yaml")], Err(&["config.yaml:2", "isn't YAML"])),
    ]);
    try_all(ways);
}

#[cfg(all(unix, feature = "file", feature = "redis"))]
#[test]
fn a_file_that_is_there_but_closed_to_us_is_an_error() {
    use std::os::unix::fs::{MetadataExt, chown};
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("config.yaml");
    let load = || Settings::load([], directory.path(), None).and_then(|settings| settings.default_service());
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    let error = load().expect_err("too large to know what it says").to_string();
    assert!(error.contains("config.yaml") && error.contains("1 MiB") && error.contains("DLOCK_CONFIG"), "{error}");
    fs::write(&path, b"redis:\n  enabled: true\n  prefix: \xff\n").expect("written");
    let error = load().expect_err("not UTF-8").to_string();
    assert!(error.contains("config.yaml:3") && error.contains("names redis"), "{error}");
    fs::remove_file(&path).expect("removed");
    // As container engines do for the source of a mount that isn't there.
    fs::create_dir(&path).expect("a directory");
    assert_eq!(load().expect("no file").0, "file");
    fs::remove_dir(&path).expect("removed");
    fs::create_dir(directory.path().join("config")).expect("a directory");
    fs::write(directory.path().join("config/config.yaml"), "redis: {enabled: true}").expect("written");
    fs::write(&path, "redis: {enabled: false}\n").expect("written");
    assert_eq!(load().expect("the second file").0, "redis", "what enables nothing hides no other file");
    if fs::metadata(&path).expect("there").uid() == 0 {
        fs::write(&path, "redis: {enabled: true}\n").expect("written");
        chown(&path, Some(65534), None).expect("root may");
        let error = load().expect_err("of somebody else").to_string();
        assert!(error.contains("config.yaml:1") && error.contains("chown"), "{error}");
    }
}

#[cfg(all(unix, feature = "file", feature = "redis"))]
#[test]
fn variables_of_kubernetes_are_nobodys_configuration() {
    let services =
        ["dlock", "dlock-redis", "dlock-etcd", "dlock-mysql", "dlock-zookeeper", "dlock-file", "dlock-memory"];
    for service in services.into_iter().chain(["dlock-redis-master", "dlock-url", "dlock-config", "dlock-port-80"]) {
        let name = service.to_uppercase().replace('-', "_");
        for protocol in ["tcp", "udp", "sctp"] {
            let upper = protocol.to_uppercase();
            let url = format!("{protocol}://10.0.0.11:6379");
            let made = [
                ("SERVICE_HOST".to_owned(), "10.0.0.11"),
                ("SERVICE_PORT".to_owned(), "6379"),
                ("SERVICE_PORT_REDIS".to_owned(), "6379"),
                ("SERVICE_PORT_WEB_UI".to_owned(), "8080"),
                ("PORT".to_owned(), &*url),
                (format!("PORT_6379_{upper}"), &*url),
                (format!("PORT_6379_{upper}_PROTO"), protocol),
                (format!("PORT_6379_{upper}_PORT"), "6379"),
                (format!("PORT_6379_{upper}_ADDR"), "10.0.0.11"),
            ];
            let made: Vec<_> = made.iter().map(|(end, value)| (format!("{name}_{end}"), *value)).collect();
            let given: Vec<_> = made.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let settings = load(&given).unwrap_or_else(|error| panic!("{service}: {error}"));
            assert_eq!(settings.default_service().expect("a default").0, "file");
            assert!(settings.notes().is_empty(), "{:?}", settings.notes());
            let on = load(&[&given[..], &[("DLOCK_REDIS_ENABLED", "true")]].concat());
            assert_eq!(on.expect("settings").default_service().expect("a default").0, "redis", "{service}");
        }
    }
    // Nearly the same, and real.
    for (name, value) in [
        ("DLOCK_MYSQL_PORT", "3306"),
        ("DLOCK_REDIS_PORT", "redis://h"),
        ("DLOCK_REDIS_PORT_X_TCP", "1"),
        ("DLOCK_REDIS_PORT_6379_TCP_X", "1"),
        ("DLOCK_REDIS_MASTER", "m"),
        ("DLOCK_REDIS_SERVICE", "x"),
    ] {
        let error = load(&[(name, value)]).and_then(|settings| settings.default_service()).expect_err(name);
        assert!(error.kind() == Kind::Invalid && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn an_empty_argument_is_never_the_default() {
    for error in [
        Config::from_url("").expect_err("empty"),
        Config::from_url(" ").expect_err("blank"),
        Config::new("", []).expect_err("empty"),
        dlock::Client::connect("").expect_err("empty"),
        dlock::registry::client(Some("")).expect_err("empty"),
        dlock::registry::from_file(Path::new("")).expect_err("empty"),
    ] {
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    let error = dlock::Client::connect("").expect_err("empty").to_string();
    assert!(error.contains("empty") && error.contains("variable isn't set"), "{error}");
    let error = dlock::registry::from_file(Path::new("")).expect_err("empty").to_string();
    assert!(error.contains("empty") && error.contains("variable isn't set"), "{error}");
}

#[cfg(feature = "memory")]
#[test]
fn local_services_need_no_switch() {
    let settings = load(&[("DLOCK_DEFAULT", "memory")]).expect("settings");
    assert_eq!(settings.default_service().expect("a default").0, "memory");
    assert_eq!(settings.service("memory").expect("always there").schema().name, "memory");
    let url = load(&[("DLOCK_URL", "memory://a?connect_timeout=2s")]).expect("settings");
    let (name, config) = url.default_service().expect("a default");
    assert_eq!((name.as_str(), config.connect_timeout()), ("memory", Duration::from_secs(2)));
    assert_eq!(url.names(), ["memory"]);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![0xff]);
    let read = |name: &str| Settings::load([(OsString::from(name), bad())], Path::new("/nonexistent"), None);
    for name in ["DLOCK_URL", "DLOCK_DEFAULT", "DLOCK_CONFIG", "DLOCK_SOMETHING_ENABLED"] {
        let error = read(name).expect_err("not UTF-8");
        assert!(error.kind() == Kind::Invalid && error.to_string().contains(name), "{error}");
    }
    assert!(read("DLOCK_SOMETHING").is_ok() && read("PATH").is_ok());
}

#[test]
fn durations_as_documented() {
    for (text, millis) in
        [("10s", 10_000), ("500ms", 500), ("5m", 300_000), ("1.5s", 1500), ("2h", 7_200_000), ("7", 7000)]
    {
        assert_eq!(duration(text).expect(text), Duration::from_millis(millis));
    }
    for text in ["", "-1s", "nan", "inf", "1e9h", "5 days", "99999999999999999999h", "1.2.3s", "１s"] {
        let error = duration(text).expect_err(text);
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

/// Whatever may stand in a URL, and much that may not.
fn url_like() -> impl Strategy<Value = String> {
    let scheme = prop_oneof!["memory", "file", "MEMORY", "memroy", "[a-z+.:/]{0,6}"];
    let rest =
        prop_oneof!["[ -~]{0,40}", "(/[a-zA-Z0-9%. é-]{0,8}){0,4}", "\\PC{0,40}", "[a-z0-9@:%,\\[\\]/?#&=]{0,40}"];
    let query = prop_oneof![Just(String::new()), r"\?prefix=[a-z%0-9&=é]{0,10}", r"\?connect_timeout=[0-9.]{1,5}m?s?"];
    let glue = prop_oneof![9 => Just("://"), 1 => Just(":")];
    (scheme, glue, rest, query).prop_map(|(scheme, glue, rest, query)| format!("{scheme}{glue}{rest}{query}"))
}

const SECRET: &str = "hunter2";

proptest! {
    #[test]
    fn a_duration_survives_being_written(nanos in 0..3_000_000_000_000_000_000_u64) {
        let time = Duration::from_nanos(nanos);
        let url = Config::new("memory", [("connect_timeout".to_owned(), Value::Time(time))]).expect("typed").url();
        prop_assert_eq!(Config::from_url(&url).expect("canonical").connect_timeout(), time);
        let text = format!("{}.{:09}s", time.as_secs(), time.subsec_nanos());
        prop_assert_eq!(duration(&text).expect("a duration"), time);
    }

    #[test]
    fn a_duration_never_panics(text in "\\PC{0,30}|[0-9.]{0,40}[a-z]{0,2}") {
        let _ = duration(&text);
    }

    #[test]
    fn a_url_is_refused_or_canonical(text in url_like()) {
        match Config::from_url(&text) {
            Ok(config) => {
                let url = config.url();
                let again = Config::from_url(&url);
                prop_assert!(again.as_ref().is_ok_and(|again| *again == config), "{text} -> {url} -> {again:?}");
                prop_assert_eq!(again.expect("canonical").url(), url);
            }
            Err(error) => prop_assert_eq!(error.kind(), Kind::Invalid),
        }
    }

    #[test]
    fn any_path_and_prefix_survive(path in "(/[^/\0]{1,8}){1,3}", prefix in "[^\0]{0,12}") {
        let given = [("dir".to_owned(), Value::Text(path)), ("prefix".to_owned(), Value::Text(prefix))];
        let config = Config::new("file", given);
        #[cfg(all(unix, feature = "file"))]
        if let Ok(config) = config {
            prop_assert_eq!(Config::from_url(&config.url()).expect("canonical"), config);
        }
    }

    #[test]
    fn a_password_is_never_shown(
        scheme in "memory|file|redis|rediss|mysql|memroy|x",
        user in "[a-z]{0,5}",
        before in "[!-~]{0,6}",
        after in "[!-~]{0,6}",
        rest in "(:[0-9a-z]{0,6})?(/[a-z0-9]{0,4})?(#[a-z]{0,3})?",
    ) {
        // As people type it: nothing encoded, whatever stands around it.
        let url = format!("{scheme}://{user}:{before}{SECRET}{after}@host{rest}");
        let shown = match Config::from_url(&url) {
            Ok(config) => format!("{config} {config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "{url}: {shown}");
        let shown = match load(&[("DLOCK_URL", &url)]) {
            Ok(settings) => format!("{settings:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(SECRET), "DLOCK_URL={url}: {shown}");
    }

    #[test]
    fn an_unknown_parameter_is_named_without_its_value(name in "[a-z_]{1,12}", scheme in "memory|redis") {
        // The name of an option of another backend tells that the value is no secret.
        let known = |driver: &&dlock::contract::Driver| Config::value_kind(driver.schema.name, &name).is_some();
        prop_assume!(!DRIVERS.iter().any(known));
        let error = Config::from_url(&format!("{scheme}://?{name}={SECRET}"));
        prop_assert!(error.is_err_and(|error| !error.to_string().contains(SECRET)));
    }

    #[test]
    fn yaml_noise_never_panics(
        text in "(redis|file|a|enabled|- |\\? |: |\n|\n  |\\[|\\]|\\{|\\}|,|&a |\\*a|!t |true|~|'|\"|#|\\||>|%|---\n|é|\t){0,60}",
        bytes in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        for noise in [text.as_bytes(), &bytes] {
            for named in [false, true] {
                if let Err(error) = settings_of(noise, named) {
                    prop_assert_eq!(error.kind(), Kind::Invalid);
                }
            }
        }
    }

    #[test]
    fn hosts_survive(host in "[a-z0-9.-]{1,12}|::1|fe80::[0-9a-f]{1,4}", port in proptest::option::of(1_u16..)) {
        prop_assert_eq!(host_port(&join_host(&host, port)).expect("a host"), (host, port));
    }

    #[test]
    fn unknown_options_are_refused(name in "\\PC{0,20}") {
        prop_assume!(!["prefix", "connect_timeout", "name"].contains(&name.as_str()));
        let refused = Config::new("memory", [(name, Value::Text(SECRET.to_owned()))]);
        prop_assert!(refused.is_err_and(|error| !error.to_string().contains(SECRET)));
    }
}

#[test]
fn every_driver_can_say_all_of_its_options_in_a_url() {
    for driver in DRIVERS {
        let empty = Values::new(driver.schema);
        let url = format!("{}://{}", driver.schema.schemes[0].name, (driver.schema.authority)(&empty));
        let config = Config::from_url(&url);
        assert!(config.is_ok_and(|config| config.url() == url), "{url}");
    }
}
