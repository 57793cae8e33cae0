use std::time::Duration;
fn urls() -> (tempfile::TempDir, Vec<String>) {
    let d = tempfile::tempdir().unwrap();
    let u = vec!["memory://".to_owned(), format!("file://{}", d.path().display())];
    (d, u)
}
#[test]
fn basic() {
    let (_d, urls) = urls();
    for url in urls {
        let c = dlock::Client::connect(&url).unwrap();
        let l = c.lock("k").acquire().wait().unwrap();
        assert!(l.is_held());
        let f = l.fence().unwrap();
        assert!(c.lock("k").try_acquire().wait().unwrap().is_none());
        let e = c.lock("k").wait(Duration::from_millis(100)).acquire().wait().unwrap_err();
        eprintln!("{e}");
        eprintln!("{:?}", c.holders("k").wait().unwrap());
        let c2 = c.clone();
        let t = std::thread::spawn(move || {
            let l2 = c2.lock("k").acquire().wait().unwrap();
            l2.fence().unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        eprintln!("{:?}", c.holders("k").wait().unwrap());
        l.release().wait().unwrap();
        assert!(t.join().unwrap() > f);
        let l = c.lock("k").renew(false).ttl(Duration::from_millis(300)).acquire().wait().unwrap();
        assert!(l.lost().wait().unwrap());
        let l2 = c.lock("k").acquire().wait().unwrap();
        assert!(l2.fence() > l.fence());
        assert!(c.break_lock("k").wait().unwrap());
        assert!(l2.lost().wait_for(Duration::from_secs(1)).unwrap().unwrap());
        assert_eq!(l2.release().wait().unwrap(), dlock::Ended::Lost);
    }
}
