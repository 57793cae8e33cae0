//! The state of a lease, and the state of its release at the backend.

use std::sync::atomic::{AtomicU8, Ordering};

/// The state of a lease. `Held` turns into one of the others, which are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Ours, as far as this process knows; whether it still counts is for [`Lease::is_held`](crate::Lease::is_held) to
    /// compute.
    Held,
    /// No longer ours, or not proven to be.
    Lost,
    /// Given back.
    Released,
}

/// The reason of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LossReason {
    Unknown,
    Expired,
    Taken,
    HeldTooLong,
    Closed,
}

/// The state of the release at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ReleaseState {
    /// The backend hasn't answered, or hasn't been asked.
    Open,
    /// The backend has given the lock back.
    Done,
    /// The lock wasn't ours.
    NotOurs,
    /// The backend never answered: the lock ends by its ttl.
    Unconfirmed,
}

/// The state of a lease, the reason of its loss, and its release, in one word: no two of them disagree.
///
/// All accesses are sequentially consistent: a change and those that wait for it may not miss one another.
#[derive(Debug)]
pub(super) struct Status(AtomicU8);

// Two bits for the state, one for a release that has begun, two for its end, three for the reason.
const RELEASING: u8 = 1 << 2;
const RELEASE: u32 = 3;
const REASON: u32 = 5;

impl Status {
    /// The status of a lease that was just granted.
    pub(super) const fn held() -> Self {
        Self(AtomicU8::new(State::Held as u8))
    }

    fn load(&self) -> u8 {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns the state.
    pub(super) fn state(&self) -> State {
        match self.load() & 0b11 {
            0 => State::Held,
            1 => State::Lost,
            _ => State::Released,
        }
    }

    /// Returns the reason of the loss.
    pub(super) fn reason(&self) -> LossReason {
        match self.load() >> REASON {
            0 => LossReason::Unknown,
            1 => LossReason::Expired,
            2 => LossReason::Taken,
            3 => LossReason::HeldTooLong,
            _ => LossReason::Closed,
        }
    }

    /// Returns true if the release at the backend has begun.
    pub(super) fn is_releasing(&self) -> bool {
        self.load() & RELEASING != 0
    }

    /// Returns how the release at the backend stands.
    pub(super) fn release(&self) -> ReleaseState {
        match self.load() >> RELEASE & 0b11 {
            0 => ReleaseState::Open,
            1 => ReleaseState::Done,
            2 => ReleaseState::NotOurs,
            _ => ReleaseState::Unconfirmed,
        }
    }

    /// `Held` → `Lost`, once. Returns true if this call did it.
    pub(super) fn lose(&self, reason: LossReason) -> bool {
        self.leave_held(State::Lost as u8 | (reason as u8) << REASON)
    }

    /// `Held` → `Released`, once. Returns true if this call did it.
    pub(super) fn let_go(&self) -> bool {
        self.leave_held(State::Released as u8)
    }

    /// `Held` → `Released`, once, and begins the release. Returns true if this call did it.
    pub(super) fn let_go_and_release(&self) -> bool {
        self.leave_held(State::Released as u8 | RELEASING)
    }

    /// While the lease is held, no other part is set.
    fn leave_held(&self, to: u8) -> bool {
        let held = State::Held as u8;
        self.load() == held && self.0.compare_exchange(held, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Begins the release of a lease that is no longer held, once. Returns true if this call did it.
    pub(super) fn begin_release(&self) -> bool {
        !self.is_releasing() && self.0.fetch_or(RELEASING, Ordering::SeqCst) & RELEASING == 0
    }

    /// Ends the release, once. A lease that its holder had given back, and that wasn't ours, was lost.
    pub(super) fn end_release(&self, state: ReleaseState) {
        let taken = state == ReleaseState::NotOurs && self.state() == State::Released;
        let reason = if taken { LossReason::Taken } else { LossReason::Unknown };
        self.0.fetch_or((state as u8) << RELEASE | (reason as u8) << REASON, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_left_once_and_the_reason_comes_with_it() {
        for reason in
            [LossReason::Unknown, LossReason::Expired, LossReason::Taken, LossReason::HeldTooLong, LossReason::Closed]
        {
            let status = Status::held();
            assert_eq!((status.state(), status.is_releasing()), (State::Held, false));
            assert!(status.lose(reason));
            assert!(!status.lose(LossReason::Closed) && !status.let_go() && !status.let_go_and_release());
            assert!(status.begin_release() && !status.begin_release());
            status.end_release(ReleaseState::NotOurs);
            assert_eq!(
                (status.state(), status.reason(), status.release()),
                (State::Lost, reason, ReleaseState::NotOurs)
            );
        }
    }

    #[test]
    fn a_release_has_one_beginning_and_one_end() {
        for (state, reason) in [
            (ReleaseState::Done, LossReason::Unknown),
            (ReleaseState::NotOurs, LossReason::Taken),
            (ReleaseState::Unconfirmed, LossReason::Unknown),
        ] {
            for at_once in [true, false] {
                let status = Status::held();
                assert!(if at_once { status.let_go_and_release() } else { status.let_go() && status.begin_release() });
                assert!(!status.begin_release() && status.release() == ReleaseState::Open);
                status.end_release(state);
                assert_eq!((status.state(), status.reason(), status.release()), (State::Released, reason, state));
            }
        }
    }
}
