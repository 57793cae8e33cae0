//! Each class of violation, found in a history written by hand; and what must not be blamed.

use std::time::Duration;

use dlock_harness::history::{Class, History, Line, Plan, Verdict, check};

/// Lines as they stand in a file; times are in milliseconds, since the checker's tolerances are.
fn judged(plan: &Plan, lines: &str) -> Verdict {
    let mut history = History::default();
    for text in lines.lines().map(str::trim).filter(|text| !text.is_empty()) {
        let mut line: Line<'_> = serde_json::from_str(text).unwrap();
        let ms = |time: u64| time.saturating_mul(1_000_000);
        (line.t, line.t2, line.vu, line.by) = (ms(line.t), ms(line.t2), line.vu.map(ms), line.by.map(ms));
        if line.k.is_empty() && line.nem.is_empty() {
            line.k = "k".into();
        }
        history.push(&line).unwrap();
    }
    check(&history, plan)
}

/// The classes found, each once.
fn found(plan: &Plan, lines: &str) -> Vec<Class> {
    let verdict = judged(plan, lines);
    let mut classes: Vec<_> = verdict.violations.iter().map(|violation| violation.class).collect();
    classes.dedup();
    classes
}

const A: &str = r#"{"t":10,"p":"a","op":1,"ph":"inv","f":"acquire"}
                   {"t":20,"p":"a","op":1,"ph":"ok","f":"acquire","tok":"A","fence":1,"vu":120}"#;
const B: &str = r#"{"t":15,"p":"b","op":1,"ph":"inv","f":"acquire"}
                   {"t":50,"p":"b","op":1,"ph":"ok","f":"acquire","tok":"B","fence":2,"vu":150}
                   {"t":60,"p":"b","op":2,"of":1,"ph":"inv","f":"release"}
                   {"t":70,"p":"b","op":2,"of":1,"ph":"ok","f":"release"}"#;

fn a_then(rest: &str) -> String {
    format!("{A}\n{rest}")
}

#[test]
fn two_holders_at_a_time() {
    let both = a_then(&format!("{B}\n{}", r#"{"t":90,"p":"a","op":2,"of":1,"ph":"inv","f":"release"}"#));
    let verdict = judged(&Plan::default(), &both);
    assert_eq!(verdict.of(Class::Overlap), 1);
    assert_eq!(verdict.violations[0].lines.len(), 4, "{:?}", verdict.violations[0]);
    let apart = a_then(&format!("{}\n{B}", r#"{"t":45,"p":"a","op":2,"of":1,"ph":"inv","f":"release"}"#));
    assert_eq!(found(&Plan::default(), &apart), []);
}

#[test]
fn a_hold_ends_with_its_validity_its_loss_or_its_process() {
    let told = r#"{"t":45,"p":"a","of":1,"ph":"lost","f":"told"}"#;
    assert_eq!(found(&Plan::default(), &a_then(&format!("{told}\n{B}"))), []);
    let killed = r#"{"t":45,"nem":"kill","target":"a","ph":"begin"}
                    {"t":46,"nem":"kill","target":"a","ph":"end"}"#;
    assert_eq!(found(&Plan::default(), &a_then(&format!("{killed}\n{B}"))), []);
    let over = A.replace("120", "45");
    assert_eq!(found(&Plan::default(), &format!("{over}\n{B}")), []);
}

#[test]
fn an_unknown_acquire_excuses_nothing_and_proves_nothing() {
    let unknown = r#"{"t":30,"p":"c","op":1,"ph":"inv","f":"acquire"}
                     {"t":40,"p":"c","op":1,"ph":"unknown","f":"acquire","err":"backend"}"#;
    assert_eq!(found(&Plan::default(), &a_then(&format!("{unknown}\n{B}"))), [Class::Overlap]);
    let verdict = judged(&Plan::default(), &a_then(unknown));
    assert!(verdict.is_good() && verdict.counts["unknown outcomes"] == 1 && verdict.counts["error backend"] == 1);
}

#[test]
fn excused_while_the_server_loses_locks() {
    let restart = r#"{"t":40,"nem":"restart","target":"server","ph":"begin"}
                     {"t":49,"nem":"restart","target":"server","ph":"end"}"#;
    let plan = Plan { losing: vec!["restart".into()], excuse: Duration::from_millis(100), ..Plan::default() };
    let verdict = judged(&plan, &a_then(&format!("{restart}\n{B}")));
    assert!(verdict.is_good() && verdict.counts["excused"] == 1, "{verdict:?}");
}

#[test]
fn fencing_tokens_that_go_back_or_come_twice() {
    let released = r#"{"t":30,"p":"a","op":2,"of":1,"ph":"inv","f":"release"}"#;
    let b = |fence: &str| a_then(&format!("{released}\n{}", B.replace("\"fence\":2", fence)));
    assert_eq!(found(&Plan::default(), &b("\"fence\":7")), []);
    assert_eq!(found(&Plan::default(), &b("\"fence\":0")), [Class::Fence]);
    assert_eq!(found(&Plan::default(), &b("\"fence\":1")), [Class::Fence]);
}

#[test]
fn said_to_count_after_its_end() {
    let asked = |t: u64, vu: u64| {
        a_then(&format!(
            r#"{{"t":{t},"p":"a","op":2,"of":1,"ph":"inv","f":"validate"}}
               {{"t":{},"p":"a","op":2,"of":1,"ph":"ok","f":"validate","vu":{vu}}}"#,
            t + 1
        ))
    };
    assert_eq!(found(&Plan::default(), &asked(119, 120)), []);
    assert_eq!(found(&Plan::default(), &asked(121, 120)), [Class::Expired]);
    // Renewed in the background.
    assert_eq!(found(&Plan::default(), &asked(121, 220)), []);
    let told = r#"{"t":80,"p":"a","of":1,"ph":"lost","f":"told"}"#;
    assert_eq!(found(&Plan::default(), &format!("{}\n{told}", asked(100, 120))), [Class::Expired]);
}

#[test]
fn a_loss_that_is_told_late_or_never() {
    let told = |t: u64| a_then(&format!(r#"{{"t":{t},"p":"a","of":1,"ph":"lost","f":"told"}}"#));
    assert_eq!(found(&Plan::default(), &told(165)), []);
    assert_eq!(found(&Plan::default(), &told(175)), [Class::LateLoss]);
    assert_eq!(judged(&Plan::default(), &told(165)).lateness, [45_000_000]);
    assert_eq!(judged(&Plan::default(), &told(50)).counts["losses told early"], 1);
    let alive = r#"{"t":300,"p":"a","op":9,"ph":"inv","f":"try"}"#;
    assert_eq!(found(&Plan::default(), &a_then(alive)), [Class::LateLoss]);
    let released = r#"{"t":130,"p":"a","op":9,"of":1,"ph":"inv","f":"release"}"#;
    assert_eq!(found(&Plan::default(), &a_then(released)), []);
    let stopped = r#"{"t":100,"nem":"stop","target":"a","ph":"begin"}
                     {"t":500,"nem":"stop","target":"a","ph":"end"}"#;
    assert_eq!(found(&Plan::default(), &format!("{}\n{stopped}", told(510))), []);
}

#[test]
fn what_is_renewed_in_the_background_is_judged_by_what_was_stated_last() {
    let auto = A.replace("\"vu\":120", "\"vu\":120,\"auto\":true");
    let told = format!("{auto}\n{}", r#"{"t":210,"p":"a","of":1,"ph":"lost","f":"told"}"#);
    assert_eq!(found(&Plan::default(), &told), []);
    let release = |vu: u64| {
        format!("{told}\n{}", format_args!(r#"{{"t":220,"p":"a","op":2,"of":1,"ph":"inv","f":"release","vu":{vu}}}"#))
    };
    assert_eq!(found(&Plan::default(), &release(200)), []);
    assert_eq!(found(&Plan::default(), &release(150)), [Class::LateLoss]);
}

#[test]
fn a_stale_release_that_is_answered_with_yes() {
    let other = r#"{"t":125,"p":"b","op":1,"ph":"inv","f":"acquire"}
                   {"t":130,"p":"b","op":1,"ph":"ok","f":"acquire","tok":"B","fence":2,"vu":131}
                   {"t":131,"p":"b","of":1,"ph":"lost","f":"told"}"#;
    for verb in ["release", "renew"] {
        let mine = format!(
            r#"{{"t":121,"p":"a","of":1,"ph":"lost","f":"told"}}
               {{"t":140,"p":"a","op":2,"of":1,"ph":"inv","f":"{verb}"}}
               {{"t":141,"p":"a","op":2,"of":1,"ph":"ok","f":"{verb}"}}"#
        );
        assert_eq!(found(&Plan::default(), &a_then(&format!("{other}\n{mine}"))), [Class::Foreign]);
        let refused = mine.replace("\"ok\"", "\"fail\"");
        assert_eq!(found(&Plan::default(), &a_then(&format!("{other}\n{refused}"))), []);
        let verdict = judged(&Plan::default(), &a_then(&format!("{other}\n{refused}")));
        assert_eq!(verdict.counts[&format!("stale {verb}s")], 1);
    }
}

#[test]
fn what_the_server_says_against_what_is_held() {
    let says = |from: u64, to: u64, tok: &str| format!(r#"{{"t":{from},"t2":{to},"srv":"owner","tok":"{tok}"}}"#);
    assert_eq!(found(&Plan::default(), &a_then(&says(30, 40, "A"))), []);
    assert_eq!(found(&Plan::default(), &a_then(&says(30, 40, "B"))), [Class::Foreign]);
    assert_eq!(found(&Plan::default(), &a_then(&says(30, 40, ""))), [Class::Foreign]);
    assert_eq!(found(&Plan::default(), &a_then(&says(15, 40, "B"))), []);
    let late = r#"{"t":121,"p":"a","of":1,"ph":"lost","f":"told"}
                  {"t":140,"p":"a","op":2,"of":1,"ph":"inv","f":"release"}
                  {"t":141,"p":"a","op":2,"of":1,"ph":"ok","f":"release"}"#;
    assert_eq!(found(&Plan::default(), &a_then(&format!("{}\n{late}", says(125, 130, "")))), [Class::Foreign]);
    assert_eq!(found(&Plan::default(), &a_then(&format!("{}\n{late}", says(125, 130, "A")))), []);
}

#[test]
fn nobody_has_it_though_somebody_waits() {
    let plan = Plan { recovery: Some(Duration::from_millis(100)), ..Plan::default() };
    let waits = r#"{"t":1,"p":"b","op":1,"ph":"inv","f":"acquire"}
                   {"t":200,"p":"b","op":1,"ph":"fail","f":"acquire","err":"timeout"}"#;
    assert_eq!(found(&plan, waits), [Class::Stalled]);
    let stopped = r#"{"t":90,"nem":"stop","target":"x","ph":"begin"}
                     {"t":120,"nem":"stop","target":"x","ph":"end"}"#;
    assert_eq!(found(&plan, &format!("{waits}\n{stopped}")), []);
    // Held for most of the time.
    assert_eq!(found(&plan, &a_then(waits)), []);
}

#[test]
fn what_is_left_at_the_server() {
    let plan = Plan { leftovers: vec!["k".into()], ..Plan::default() };
    assert_eq!(found(&plan, ""), [Class::Orphan]);
}

#[test]
fn a_call_that_is_not_back_in_time() {
    let waits = |end: u64| {
        format!(
            r#"{{"t":1,"p":"b","op":1,"ph":"inv","f":"acquire","by":100}}
               {{"t":{end},"p":"b","op":1,"ph":"fail","f":"acquire","err":"timeout"}}"#
        )
    };
    assert_eq!(found(&Plan::default(), &waits(1150)), []);
    assert_eq!(found(&Plan::default(), &waits(1250)), [Class::Overdue]);
    let never = waits(1250).replace("\"op\":1,\"ph\":\"fail\"", "\"op\":2,\"ph\":\"inv\"");
    assert_eq!(found(&Plan::default(), &never), [Class::Overdue]);
    let stopped = r#"{"t":90,"nem":"stop","target":"b","ph":"begin"}
                     {"t":1100,"nem":"stop","target":"b","ph":"end"}"#;
    assert_eq!(found(&Plan::default(), &format!("{}\n{stopped}", waits(1250))), []);
}

#[test]
fn a_required_counter_of_zero_fails_the_run() {
    let plan = Plan { required: vec!["stale releases".into()], ..Plan::default() };
    let verdict = judged(&plan, A);
    assert!(verdict.violations.is_empty() && !verdict.is_good() && verdict.missing == ["stale releases"]);
}

#[test]
fn lines_are_read_as_they_were_written() {
    let mut history = History::default();
    for text in A.lines() {
        history.push(&serde_json::from_str(text).unwrap()).unwrap();
    }
    let again: Line<'_> = serde_json::from_str(&history.show(&history.events[1])).unwrap();
    assert_eq!(again, serde_json::from_str(A.lines().nth(1).unwrap()).unwrap());
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), format!("{}\n{{\"t\":5,", A.lines().next().unwrap())).unwrap();
    let mut cut = History::default();
    cut.read(path.path()).unwrap();
    assert_eq!(cut.events.len(), 1);
}
