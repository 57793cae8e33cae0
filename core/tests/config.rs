//! Configuration through its public face: the embedded default, the local services, and what holds for any input.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use dlock::config::{Settings, Value, Values, duration, host_port, join_host};
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

#[cfg(feature = "memory")]
#[test]
fn local_services_need_no_switch() {
    let settings = load(&[("DLOCK_DEFAULT", "memory")]).expect("settings");
    assert_eq!(settings.default_service().expect("a default").0, "memory");
    assert_eq!(settings.service("memory").expect("always there").driver().name, "memory");
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
        prop_assume!(!["prefix", "connect_timeout"].contains(&name.as_str()));
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
    for driver in dlock::backend::DRIVERS {
        let empty = Values::new(driver);
        let url = format!("{}://{}", driver.schemes[0].name, (driver.authority)(&empty));
        let config = Config::from_url(&url);
        assert!(config.is_ok_and(|config| config.url() == url), "{url}");
    }
}
