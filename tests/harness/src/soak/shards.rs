//! Several smaller runs at the same time, each with servers of its own. A run mostly waits.

use std::process::{Command, Output, Stdio};

use dlock_harness::languages::Speakers;

use crate::Options;
use crate::place::{FAULTS_FOR_RARE, RARE};

/// Starts the runs, prints the output of each, and returns true if all is well. The last line counts the runs.
pub(crate) fn run(options: &Options, seed: u64) -> Result<bool, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let share = |all: u64| all.div_ceil(options.shards).to_string();
    let start = |shard: u64| {
        let mut command = Command::new(&own);
        command.args(["--url", &options.url, "--processes", &options.processes]);
        command.args(["--threads", &options.threads.to_string(), "--keys", &options.keys.to_string()]);
        match options.entries {
            Some(entries) => command.args(["--entries", &share(entries)]),
            None => command.args(["--operations", &share(options.operations)]),
        };
        command.args(["--faults", &share(options.faults)]);
        command.args(options.rogue.iter().flat_map(|language| ["--rogue", language]));
        command.args(options.mutant().iter().flat_map(|name| ["--mutant", name]));
        command.args(["--ttl", &format!("{}ms", options.ttl.as_millis())]);
        command.args(["--slack", &format!("{}ms", options.slack.as_millis())]);
        command.args(["--seed", &seed.wrapping_add(shard).to_string()]);
        let Speakers { python, node, c_dir, tests } = &options.speakers;
        command.arg("--python").arg(python).arg("--node").arg(node).arg("--c-dir").arg(c_dir).arg("--tests").arg(tests);
        if let Some(keep) = &options.keep {
            command.arg("--keep").arg(keep.join(shard.to_string()));
        }
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())
    };
    let running: Vec<_> = (0..options.shards).map(start).collect::<Result<_, _>>()?;
    let (mut sums, mut failed, mut rare) = ([0_u64; 3], 0, None);
    for (shard, child) in running.into_iter().enumerate() {
        let Output { status, stdout, .. } = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&stdout);
        println!("run {shard}, seed {}", seed.wrapping_add(shard as u64));
        for line in text.lines() {
            println!("  {line}");
            let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            if let Some(count) = line.strip_suffix(RARE) {
                *rare.get_or_insert(0) += count.trim().parse().unwrap_or(0_u64);
            }
            if line.contains("operations checked,")
                && let [operations, faults, violations] = numbers[..]
            {
                sums.iter_mut().zip([operations, faults, violations]).for_each(|(sum, one)| *sum += one);
            }
        }
        failed += u64::from(!status.success());
    }
    let [operations, faults, violations] = sums;
    println!("\n{operations} operations checked, {faults} faults, {violations} violations in {} runs", options.shards);
    let unseen = options.faults >= FAULTS_FOR_RARE && rare == Some(0) && !options.url.starts_with("file");
    if unseen {
        println!("never seen in any run, so nothing is known of it: {RARE}");
        failed += 1;
    }
    println!("{} passed, {failed} failed", options.shards.saturating_sub(failed));
    Ok(failed == 0)
}
