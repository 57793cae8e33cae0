//! The progress of a run: a watch that ends when the run has done its work, and that prints how far it is.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::Options;
use crate::fleet::Fleet;
use crate::nemesis::{Schedule, locked};

const EVERY: Duration = Duration::from_secs(5);
/// The time without a new line after which the run is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// The marks of lines of calls that returned.
const RETURNS: [&str; 3] = [r#""ph":"ok""#, r#""ph":"fail""#, r#""ph":"unknown""#];
/// The marks of calls that ask for a lock. A grant is such a call that succeeded.
const GRANTS: [&str; 2] = [r#""f":"acquire""#, r#""f":"try""#];

/// Watches the run until all is done. Fails if a worker ends by itself or nothing happens any more.
pub(crate) fn watch(
    folder: &Path,
    options: &Options,
    schedule: &Schedule,
    fleet: &Mutex<Fleet>,
    faults_done: impl Fn() -> bool,
) -> Result<(), String> {
    let (mut files, mut so_far, begun) = (HashMap::new(), Seen::default(), Instant::now());
    let (mut said, mut moved) = (begun, begun);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let more = count(folder, &mut files).map_err(|error| error.to_string())?;
        so_far.calls += more.calls;
        // Grants from before the last process's start only show how fast the others start.
        let begun_all = files.values().filter(|&&read| read > 0).count() >= locked(fleet).slots.len();
        if begun_all {
            so_far.grants += more.grants;
        } else if begun.elapsed() > STUCK {
            return Err(format!("not every process has written a line within {STUCK:?}"));
        }
        let faults = schedule.done.load(Ordering::Relaxed);
        if more.calls > 0 {
            moved = Instant::now();
        } else if moved.elapsed() > STUCK {
            return Err(format!("no call came back for {STUCK:?}"));
        }
        if said.elapsed() > EVERY {
            said = Instant::now();
            let Seen { calls, grants } = so_far;
            eprintln!("{:5.0} s  {calls} operations  {grants} entries  {faults} faults", begun.elapsed().as_secs_f64());
        }
        if let Some(why) = locked(fleet).fallen() {
            return Err(why);
        }
        let enough = match options.entries {
            Some(entries) => so_far.grants >= entries,
            None => so_far.calls >= options.operations,
        };
        if enough && faults_done() {
            return Ok(());
        }
    }
}

/// The numbers of calls that returned, and of the grants among them.
#[derive(Default)]
struct Seen {
    calls: u64,
    grants: u64,
}

/// Counts the calls that returned since the last count.
fn count(folder: &Path, files: &mut HashMap<PathBuf, u64>) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().contains('-'));
        if !named || path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let from = files.entry(path.clone()).or_default();
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(*from))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may still be incomplete.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        *from += text.len() as u64;
        for line in text.lines().filter(|line| RETURNS.iter().any(|mark| line.contains(mark))) {
            seen.calls += 1;
            seen.grants += u64::from(line.contains(RETURNS[0]) && GRANTS.iter().any(|mark| line.contains(mark)));
        }
    }
    Ok(seen)
}
