//! What options there are: their names, what a value must be and where it may come from.

use crate::backend::{Driver, SERVICES};
use crate::error::{Error, show};

/// Every backend of a build; tests bring their own.
pub(crate) type Drivers = &'static [&'static Driver];

/// One URL scheme of a driver and what it says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// What stands before `://`, in lower case.
    pub name: &'static str,
    /// Whether it sets the option `tls`. A driver with such a scheme has the TLS options.
    pub tls: bool,
    /// What it sets the option `mode` to. The mode of a driver's first scheme is its default.
    pub mode: Option<&'static str>,
}

/// What a value of an option must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Any text without NUL.
    Text,
    /// `true`, `false`, `1` or `0`.
    Flag,
    /// A whole number from 0.
    Count,
    /// A duration, see [`duration`](super::duration).
    Time,
    /// Texts separated by commas.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One option of a driver.
///
/// An option that is no secret must be expressible in a URL: either by a parameter (`url`), or in what the driver's
/// `authority` writes and its `parts` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name: of the typed argument, the YAML key, the URL parameter; in capitals the end of the variable.
    pub name: &'static str,
    /// What a value must be.
    pub want: Want,
    /// Whether a value is never shown.
    pub secret: bool,
    /// Whether there is a variable `DLOCK_<DRIVER>_<NAME>`.
    pub env: bool,
    /// Whether it may stand in the driver's YAML block.
    pub yaml: bool,
    /// Whether it may stand as `?name=` in a URL.
    pub url: bool,
}

impl Opt {
    /// An option of a service that stands in a URL in the driver's own way.
    pub const fn of_service(name: &'static str, want: Want) -> Self {
        Self { name, want, secret: false, env: true, yaml: true, url: false }
    }

    const fn common(name: &'static str, want: Want) -> Self {
        Self { name, want, secret: false, env: false, yaml: true, url: true }
    }
}

const PREFIX: Opt = Opt::common("prefix", Want::Text);
const CONNECT_TIMEOUT: Opt = Opt::common("connect_timeout", Want::Time);
/// The option that a scheme with `tls` sets.
pub(crate) const TLS: &str = "tls";
/// The option that a scheme with a `mode` sets.
pub(crate) const MODE: &str = "mode";
/// The options that make sense with TLS only.
pub(crate) const TLS_ONLY: [&str; 4] = ["ca", "cert", "key", "sni"];

/// The options of a driver: its own, then the common ones that it doesn't declare itself.
pub(crate) fn options(driver: &'static Driver) -> impl Iterator<Item = Opt> {
    let with_tls = driver.schemes.iter().any(|scheme| scheme.tls);
    let in_env = |opt: Opt| Opt { env: driver.service, ..opt };
    let tls = TLS_ONLY.map(|name| Opt { env: driver.service && name != "sni", ..Opt::common(name, Want::Text) });
    let common = [in_env(PREFIX), CONNECT_TIMEOUT].into_iter();
    let tls = [Opt::common(TLS, Want::Flag)].into_iter().chain(tls).filter(move |_| with_tls);
    let inherited = common.chain(tls).filter(|opt| !driver.options.iter().any(|own| own.name == opt.name));
    driver.options.iter().copied().chain(inherited)
}

/// The option of this name.
pub(crate) fn option(driver: &'static Driver, name: &str) -> Option<Opt> {
    options(driver).find(|opt| opt.name == name)
}

/// The driver of this name, or an error that lists those there are.
pub(crate) fn driver(drivers: Drivers, name: &str) -> Result<&'static Driver, Error> {
    drivers.iter().copied().find(|driver| driver.name == name).ok_or_else(|| {
        if SERVICES.contains(&name) {
            return Error::invalid(absent(drivers, name));
        }
        let names = || drivers.iter().map(|driver| driver.name);
        let hint = hint(name, names());
        Error::invalid(format!("there is no backend {} in this build{hint}; it has: {}", show(name), list(names())))
    })
}

/// That this build doesn't have a service, and how there would be one that does.
pub(crate) fn absent(drivers: Drivers, service: &str) -> String {
    let services = || drivers.iter().filter(|driver| driver.service).map(|driver| driver.name);
    let names = list(services());
    if SERVICES.contains(&service) {
        return format!("this build has no service {service} (it has: {names}); use one with the feature {service}");
    }
    let hint = hint(service, services().chain(SERVICES.iter().copied()));
    format!("this build has no service {}{hint}; it has: {names}", show(service))
}

/// The end of a message about an unknown name: ` (did you mean …?)` if one is near, else nothing.
pub(crate) fn hint<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(name, names).map(|near| format!(" (did you mean {near}?)")).unwrap_or_default()
}

/// The name that was probably meant, if one is near enough.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let folded = name.to_lowercase();
    let distance = |known: &&str| strsim::damerau_levenshtein(&folded, &known.to_lowercase());
    let near = names.min_by_key(distance)?;
    let limit = (folded.chars().count().min(near.len()) / 2).clamp(1, 3);
    (distance(&near) <= limit).then_some(near)
}

/// Names for a message: `a, b, c`, or `none`.
pub(crate) fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<T> = names.collect();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::sample::DEPOT;
    use super::*;

    #[test]
    fn a_drivers_own_option_hides_the_common_one() {
        let names: Vec<_> = options(&DEPOT).map(|opt| opt.name).collect();
        assert_eq!(names.iter().filter(|name| **name == TLS).count(), 1);
        assert!(option(&DEPOT, TLS).is_some_and(|opt| opt.env), "declared by the driver");
        assert!(option(&DEPOT, "ca").is_some_and(|opt| opt.env) && option(&DEPOT, "sni").is_some_and(|opt| !opt.env));
        assert!(option(&DEPOT, "connect_timeout").is_some_and(|opt| !opt.env && opt.url && opt.yaml));
    }

    #[test]
    fn names_the_nearest_only_when_it_is_near() {
        let names = ["addrs", "password", "db"];
        assert_eq!(nearest("adrs", names.into_iter()), Some("addrs"));
        assert_eq!(nearest("PASWORD", names.into_iter()), Some("password"));
        assert_eq!(nearest("wholly", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(10_000), names.into_iter()), None);
    }
}
