//! The check of the library's reports to holders: no lease counts after its end, and each loss is reported in time.

use std::time::Duration;

use super::check::{Class, Judge, nanos, yes};
use super::event::Verb;
use super::hold::End;

pub(crate) fn check(judge: &mut Judge<'_>) {
    validations(judge);
    losses(judge);
}

/// Checks for validations that began after the end stated in their own answer, and still succeeded.
fn validations(judge: &mut Judge<'_>) {
    let mut wrong = Vec::new();
    for call in &judge.table.calls {
        let (inv, Some(ret), Some(hold)) = (&judge.table.events[call.inv], call.ret, call.hold) else { continue };
        let answer = &judge.table.events[ret];
        if inv.f != Verb::Validate || !yes(answer.ph) {
            continue;
        }
        let hold = &judge.table.holds[hold];
        let vu = answer.vu.unwrap_or(hold.vu);
        if inv.t > vu {
            wrong.push((*inv, call.inv, ret, hold.from, format!("{:?} after its end", ago(vu, inv.t))));
        } else if inv.t > hold.told {
            wrong.push((
                *inv,
                call.inv,
                ret,
                hold.from,
                format!("{:?} after its loss was told", ago(hold.told, inv.t)),
            ));
        }
    }
    for (event, inv, ret, from, when) in wrong {
        let text = format!("said to count {when}");
        judge.blame(Class::Expired, event.t, event.k, text, &[Some(from), Some(inv), Some(ret)]);
    }
}

/// Checks every lease that ended while its holder had it. Measures the time from the end to the report, without the
/// time in which the process was stopped. A lease that was released in between needs no report.
fn losses(judge: &mut Judge<'_>) {
    let slack = nanos(judge.plan.slack);
    let early = nanos(judge.plan.early);
    let mut late = Vec::new();
    let (mut false_losses, mut expiries) = (0, 0);
    for hold in &judge.table.holds {
        if hold.told < u64::MAX && hold.told.saturating_add(early) < hold.vu {
            false_losses += 1;
        }
        expiries += u64::from(hold.why == End::Told || hold.why == End::Expired && hold.sure);
        if !hold.sure || hold.vu == u64::MAX || hold.left <= hold.vu {
            continue;
        }
        let life = judge.table.life(hold.p);
        let end = hold.told.min(hold.left).min(life.death.unwrap_or(u64::MAX));
        let end = if end == u64::MAX { life.last } else { end };
        let mut over = end.saturating_sub(hold.vu);
        if over > 0 {
            over = over.saturating_sub(life.stopped(hold.vu, end));
        }
        if hold.told < u64::MAX {
            judge.verdict.lateness.push(over);
        }
        if over > slack {
            late.push((*hold, over));
        }
    }
    judge.verdict.lateness.sort_unstable();
    judge.verdict.count("losses told early", false_losses);
    judge.verdict.count("expiries while held", expiries);
    for (hold, over) in late {
        let never = if hold.told == u64::MAX { "had not been told" } else { "was told" };
        let text = format!("its loss {never} {:?} after its end", Duration::from_nanos(over));
        judge.blame(Class::LateLoss, hold.vu, hold.k, text, &[Some(hold.from), hold.to]);
    }
}

fn ago(then: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
}
