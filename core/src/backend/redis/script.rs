//! The scripts: what is loaded into the server, and sent in full where it isn't.

use std::sync::OnceLock;

/// Which script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// Acquires or queues.
    Take,
    /// Gives the lock back.
    Give,
    /// Leaves the queue, or gives back what nobody saw.
    Leave,
    /// Takes the lock away.
    Force,
    /// Renews many.
    Renew,
    /// Looks.
    Look,
}

/// How many there are.
pub(super) const COUNT: usize = 6;

impl Script {
    /// All of them, in the order of their numbers.
    pub(super) const ALL: [Self; COUNT] = [Self::Take, Self::Give, Self::Leave, Self::Force, Self::Renew, Self::Look];

    /// The script's text.
    pub(super) fn text(self) -> &'static str {
        static TEXTS: OnceLock<[String; COUNT]> = OnceLock::new();
        &TEXTS.get_or_init(|| Self::ALL.map(Self::build))[self as usize]
    }

    fn build(self) -> String {
        const COMMON: &str = include_str!("scripts/common.lua");
        let parts: &[&str] = match self {
            Self::Take => &[include_str!("scripts/take_first.lua"), COMMON, include_str!("scripts/take.lua")],
            Self::Give => &[include_str!("scripts/give_first.lua"), COMMON, include_str!("scripts/give.lua")],
            Self::Leave => &[COMMON, include_str!("scripts/leave.lua")],
            Self::Force => &[COMMON, include_str!("scripts/force.lua")],
            Self::Renew => &[include_str!("scripts/renew.lua")],
            Self::Look => &[include_str!("scripts/look.lua")],
        };
        broken(parts.concat())
    }
}

/// The deliberate defects that are defects of the scripts.
fn broken(text: String) -> String {
    text
}
