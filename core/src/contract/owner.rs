//! The names of the owners of locks: this process, its clients, and what their names tell.

use crate::runtime::PerProcess;

/// Returns the name of a client of this process in a backend's queue: `dlock:<host>:<pid>:<128 random bits>:<client>`.
pub(crate) fn contender(client: u32) -> String {
    format!("{}:{client}", identity())
}

/// The host and the process of a contender or a claim; `None` for a text that is neither.
pub(crate) fn parse_owner(contender: &str) -> (Option<String>, Option<u32>) {
    let mut parts = contender.split(':');
    if parts.next() != Some("dlock") {
        return (None, None);
    }
    let host = parts.next().map(str::to_owned);
    match parts.next().and_then(|pid| pid.parse().ok()) {
        Some(pid) => (host, Some(pid)),
        None => (None, None),
    }
}

/// This process's part of every token: `dlock:<host>:<pid>:<128 random bits>`.
pub(crate) fn identity() -> &'static str {
    static IDENTITY: PerProcess<String> = PerProcess::new();
    IDENTITY.get(|| {
        const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
        let mut random = [0; 22];
        getrandom::fill(&mut random).expect("the system has no source of random numbers");
        let text: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect();
        format!("dlock:{}:{}:{text}", host(), std::process::id())
    })
}

/// This host's name, reduced to letters, digits and hyphens, 32 at the most.
pub(crate) fn host() -> &'static str {
    static HOST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    HOST.get_or_init(|| {
        #[cfg(unix)]
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        #[cfg(not(unix))]
        let name = std::env::var("COMPUTERNAME").unwrap_or_default();
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(32).collect();
        if name.is_empty() { "localhost".to_owned() } else { name }
    })
}
