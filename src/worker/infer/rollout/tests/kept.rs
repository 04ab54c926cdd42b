//! Queries kept one by one, and shards.

use super::*;

/// What a rollout under a folder of kept queries gave.
struct Run {
    /// Bytes of the records and of the metrics.
    files: (Vec<u8>, Vec<u8>),
    reused: Value,
    answered: usize,
    logged: Vec<String>,
}

fn partial(dir: &std::path::Path, key: u8) -> PartialResults {
    PartialResults {
        dir: dir.to_owned(),
        key: format!("{key:02x}").repeat(32),
        fresh: false,
    }
}

/// Rolls queries out, keeping them in `dir` under the policy `key`.
fn kept_in(
    dir: &std::path::Path,
    key: u8,
    queries: &[&str],
    lives_for: Option<usize>,
) -> Result<Run, Failure> {
    let job = job(json!({"steps": 3}), queries).with_partial(partial(dir, key));
    let mut babbler = Babbler::new(if lives_for.is_some() { 1 } else { 4 });
    babbler.lives_for = lives_for;
    let figures = job.run(|c| roll_out(c, &mut babbler, &ByteText))?;
    let bytes = |output, file| std::fs::read(job.path(output, file)).unwrap();
    Ok(Run {
        files: (
            bytes("rollouts", ROLLOUTS_FILE),
            bytes("metrics", METRICS_FILE),
        ),
        reused: figures
            .into_iter()
            .find(|figure| figure.name == "reused_queries")
            .unwrap()
            .value,
        answered: babbler.answered(),
        logged: job.logged(Level::Info),
    })
}

fn kept_files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = |dir: &std::path::Path| {
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|e| e.unwrap().path())
            .collect::<Vec<_>>()
    };
    let mut files: Vec<_> = entries(dir).iter().flat_map(|d| entries(d)).collect();
    files.sort();
    files
}

const QUERIES: [&str; 6] = ["one", "two", "refuse", "three", "four", "five"];

#[test]
fn what_an_earlier_run_kept_gives_the_same_bytes_and_asks_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert_eq!((first.reused, first.logged.len()), (json!(0), 0));
    // The one that the template refuses is kept, too.
    assert_eq!(kept_files(dir.path()).len(), 6);
    let again = kept_in(dir.path(), 1, &QUERIES, Some(0)).unwrap();
    assert_eq!((again.reused, again.answered), (json!(6), 0));
    assert!(first.files == again.files);
    let logged = again.logged[0].replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(logged, @"6 of 6 queries were rolled out before and are taken from DIR");
    // Another policy, or other parameters: nothing is shared.
    let other = kept_in(dir.path(), 2, &QUERIES, None).unwrap();
    assert_eq!(other.reused, json!(0));
}

#[test]
fn a_killed_rollout_goes_on_where_it_was() {
    let queries: Vec<String> = (0..20).map(|i| format!("query {i}")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let whole = tempfile::tempdir().unwrap();
    let undisturbed = kept_in(whole.path(), 1, &queries, None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (mut answered, mut kills) = (0, 0);
    // Killed again and again, thirty generations later each time.
    let resumed = loop {
        let before = kept_files(dir.path()).len();
        match kept_in(dir.path(), 1, &queries, Some(30)) {
            Ok(run) => break run,
            Err(failure) => assert_eq!(failure.message, "babbler failed: killed"),
        }
        assert!(kept_files(dir.path()).len() > before, "some were finished");
        kills += 1;
        answered += 30;
    };
    assert!(kills > 1, "{} in all", undisturbed.answered);
    assert!(resumed.files == undisturbed.files);
    // With one request in flight a kill costs one query at most: what M N K may give of it.
    let most = undisturbed.answered + kills * 2 * 2 * 3;
    assert!(answered + resumed.answered <= most);
}

#[test]
fn shards_one_behind_the_other_are_the_whole() {
    let whole = tempfile::tempdir().unwrap();
    let want = kept_in(whole.path(), 1, &QUERIES, None).unwrap();
    // Eight of six queries: some have none.
    for of in [3, 8] {
        let dir = tempfile::tempdir().unwrap();
        let mut union = Vec::new();
        for index in 0..of {
            let job = job(json!({"steps": 3}), &QUERIES)
                .with_partial(partial(dir.path(), 1))
                .with_shard(Shard { index, of });
            let mut babbler = Babbler::new(4);
            job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
            union.extend(std::fs::read(job.path("rollouts", ROLLOUTS_FILE)).unwrap());
        }
        assert!(union == want.files.0, "{of} shards");
        let run = kept_in(dir.path(), 1, &QUERIES, Some(0)).unwrap();
        assert!(run.answered == 0 && run.files == want.files);
    }
}

#[test]
fn a_shard_that_cannot_keep_its_queries_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let job = job(json!({}), &["q"])
        .with_partial(partial(&file, 1))
        .with_shard(Shard { index: 0, of: 2 });
    let rolled_out = |job: &TestJob| job.run(|c| roll_out(c, &mut Babbler::new(4), &ByteText));
    assert!(
        rolled_out(&job).is_ok(),
        "the first of two has none of one query"
    );
    let job = job.with_shard(Shard { index: 1, of: 2 });
    let failure = rolled_out(&job).unwrap_err();
    assert!(
        failure
            .message
            .starts_with("shard 2 of 2 cannot keep a finished query: "),
        "{failure}"
    );
}

#[test]
fn only_new_queries_are_rolled_out_and_their_order_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    let more = ["five", "new", "two", "one", "four", "refuse", "three"];
    let run = kept_in(dir.path(), 1, &more, None).unwrap();
    assert_eq!(run.reused, json!(6));
    assert!(run.answered <= 2 * 2 * 3, "{} of one query", run.answered);
    let lines = |run: &Run| -> Vec<String> {
        let text = String::from_utf8(run.files.0.clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (before, after) = (lines(&first), lines(&run));
    for (query, line) in more.iter().zip(&after) {
        match QUERIES.iter().position(|q| q == query) {
            Some(place) => assert_eq!(line, &before[place], "{query}"),
            None => assert!(line.contains("\"query\":\"new\"")),
        }
    }
    // The same as if nothing had been there.
    let empty = tempfile::tempdir().unwrap();
    let fresh = kept_in(empty.path(), 1, &more, None).unwrap();
    assert!(fresh.files == run.files);
    let shuffled = ["two", "three", "five", "one", "refuse", "four"];
    assert_eq!(
        kept_in(dir.path(), 1, &shuffled, Some(0)).unwrap().answered,
        0
    );
}

#[test]
fn a_damaged_kept_query_is_rolled_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    let files = kept_files(dir.path());
    let bytes = std::fs::read(&files[0]).unwrap();
    std::fs::write(&files[0], &bytes[..bytes.len() - 7]).unwrap();
    let mut flipped = std::fs::read(&files[1]).unwrap();
    *flipped.last_mut().unwrap() ^= 4;
    std::fs::write(&files[1], flipped).unwrap();
    std::fs::copy(&files[2], &files[3]).unwrap();
    let again = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert_eq!(again.reused, json!(3));
    assert!(again.files == first.files);
    assert_eq!(std::fs::read(&files[0]).unwrap(), bytes, "mended");
}

#[test]
fn a_rollout_that_is_forced_is_computed_anew_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    for file in kept_files(dir.path()) {
        std::fs::write(file, "").unwrap();
    }
    let job = job(json!({"steps": 3}), &QUERIES).with_partial(PartialResults {
        dir: dir.path().to_owned(),
        key: "01".repeat(32),
        fresh: true,
    });
    let mut babbler = Babbler::new(4);
    job.run(|c| roll_out(c, &mut babbler, &ByteText)).unwrap();
    let again = kept_in(dir.path(), 1, &QUERIES, None).unwrap();
    assert!(babbler.answered() > 0 && again.answered == 0);
}

/// A collection may run beside a rollout.
#[test]
fn a_kept_query_that_goes_before_it_is_written_is_rolled_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let whole = kept_in(dir.path(), 1, &["one", "two", "three"], None).unwrap();
    let other = tempfile::tempdir().unwrap();
    kept_in(other.path(), 1, &["one"], None).unwrap();
    let of_one = kept_files(other.path()).remove(0);
    let job = job(json!({"steps": 3}), &["one", "two", "three"]).with_partial(PartialResults {
        dir: dir.path().to_owned(),
        key: "01".repeat(32),
        fresh: false,
    });
    // "one" is not there, so the others wait for it; they go while it is rolled out.
    for file in kept_files(dir.path()) {
        if file.file_name() == of_one.file_name() {
            std::fs::remove_file(file).unwrap();
        }
    }
    let mut babbler = Babbler::new(4);
    let figures = job
        .run(|context| {
            let mut driver = Driver::new(context, typed_params(context), &ByteText)?;
            for file in kept_files(dir.path()) {
                std::fs::remove_file(file).unwrap();
            }
            driver.roll_out(&mut babbler)?;
            driver.finish()
        })
        .unwrap();
    assert!(figures.contains(&Figure::new("reused_queries", 0, Unit::Count)));
    assert!(std::fs::read(job.path("rollouts", ROLLOUTS_FILE)).unwrap() == whole.files.0);
}

#[test]
fn what_the_engine_could_not_serve_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = |lines: &[&[Line]]| {
        let changes = json!({"beams": 1, "rollouts": 1, "steps": 1});
        let job = job(changes, &["a", "b"]).with_partial(PartialResults {
            dir: dir.path().to_owned(),
            key: "01".repeat(32),
            fresh: false,
        });
        let mut script = Script::new(lines);
        job.run(|c| roll_out(c, &mut script, &ByteText)).unwrap();
        records(&job)
    };
    let line = ("a\n|x$", -1.0, -0.5);
    let first = run(&[&[("#", 0.0, 0.0)], &[line]]);
    assert_eq!(first[0].skipped.as_deref(), Some("engine: no"));
    let second = run(&[&[line]]);
    assert_eq!(second[0].skipped, None);
    assert_eq!(second[1], first[1]);
}

#[test]
fn where_nothing_can_be_kept_the_rollout_goes_on_and_says_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let job = job(json!({"steps": 1}), &["one", "two"]).with_partial(PartialResults {
        dir: file.join("no-folder"),
        key: "01".repeat(32),
        fresh: false,
    });
    job.run(|c| roll_out(c, &mut Babbler::new(1), &ByteText))
        .unwrap();
    assert_eq!(records(&job).len(), 2);
    let logged = job.logged(Level::Warn);
    assert_eq!(logged.len(), 1);
    let logged = logged[0].replace(&dir.path().display().to_string(), "DIR");
    assert!(
        logged.starts_with(
            "finished queries cannot be kept one by one (cannot make the folder DIR/file"
        ) && logged.ends_with("if this stage is stopped, it begins anew"),
        "{logged}"
    );
}
