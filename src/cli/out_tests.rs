//! Outputs by name, with results put into a cache by hand.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::cli::lookup::is_sound;
use crate::cli::offline::{Offline, known_commits};
use crate::cli::pipeline_args::CacheArgs;
use crate::plan::{Fingerprint, Machine, Resolver, RunOptions, SystemResolver};
use crate::protocol::example;
use crate::spec::{self, Pipeline};
use crate::store::{ContentHash, Key, RECORD_FORMAT, Record, Results};

const TEXT: &str = "\
version: 1
name: small
stages:
  queries: { uses: queries, with: { source: { path: q.jsonl, field: q } } }
  count: { uses: command, needs: { data: queries.queries }, with: { run: [wc], outputs: { n: {}, log: {} } } }
";

struct Place {
    dir: tempfile::TempDir,
    store: Store,
    pipeline: Pipeline,
    args: PipelineArgs,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("q.jsonl"), "{\"q\":\"one\"}\n").unwrap();
        let file = dir.path().join("p.yaml");
        fs::write(&file, TEXT).unwrap();
        Self {
            store: Store::open(&dir.path().join("cache")).unwrap(),
            pipeline: spec::load(&file, &[]).unwrap_or_else(|e| panic!("{e}")),
            args: PipelineArgs {
                pipeline: "p.yaml".into(),
                set: Vec::new(),
                variants: Vec::new(),
                all_variants: false,
                cache: CacheArgs { cache: None },
                device: "cpu".into(),
                machine: None,
                threads: 0,
                resources: None,
            },
            dir,
        }
    }

    fn graph(&self) -> Graph {
        let machine = Machine::known(example::cpu("avx2"));
        let options = RunOptions {
            device: "cpu".into(),
            threads: 0,
            resources: spec::Resources::default(),
        };
        let resolver = SystemResolver {
            hub_endpoint: None,
            hub_token: None,
            hub_cache: Some(self.dir.path().join("hub")),
            variables: BTreeMap::new(),
            memory: None,
        };
        Graph::build(&self.pipeline, &machine, &options, &resolver).unwrap()
    }

    fn find(&self, text: &str) -> Result<Found, CliError> {
        let wanted = Wanted::parse(text, &self.pipeline)?;
        find(&self.graph(), &wanted, Some(&self.store), &self.args)
    }

    fn message(&self, error: Option<CliError>) -> String {
        let text = error.expect("an error").render(false);
        text.replace(&self.dir.path().display().to_string(), "DIR")
    }

    /// Keeps a result of the first `n` stages: each output a file of its name.
    fn compute(&self, n: usize) {
        let graph = self.graph();
        let mut hashes: Vec<BTreeMap<String, ContentHash>> = Vec::new();
        for node in graph.nodes.iter().take(n) {
            let inputs = node
                .needs
                .iter()
                .map(|(slot, need)| (slot.clone(), hashes[need.from][&need.output]))
                .collect();
            let fingerprint = Fingerprint::new(node, &inputs);
            let outputs = self.outputs(&node.outputs);
            hashes.push(outputs.iter().map(|(n, t)| (n.clone(), t.hash)).collect());
            self.put(fingerprint.key(), outputs);
        }
    }

    fn outputs(&self, names: &[String]) -> BTreeMap<String, Tree> {
        let tree = |name: &String| {
            let job = self.store.job_dir("test").unwrap();
            let folder = job.output().join("deep");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("x.txt"), format!("made {name}")).unwrap();
            self.store.ingest_whole(&job).unwrap()
        };
        names.iter().map(|n| (n.clone(), tree(n))).collect()
    }

    fn put(&self, key: Key, outputs: BTreeMap<String, Tree>) {
        let record = Record {
            format: RECORD_FORMAT,
            key,
            kind: "x".into(),
            preimage: Value::Null,
            outputs,
            figures: json!([]),
            provenance: Value::Null,
        };
        self.store.put(&record).unwrap();
    }
}

#[test]
fn the_first_output_unless_another_is_named() {
    let place = Place::new();
    place.compute(2);
    let read = |text: &str| {
        let found = place.find(text).unwrap();
        let folder = lay_out(&place.store, &found).unwrap();
        fs::read_to_string(folder.join("deep/x.txt")).unwrap()
    };
    assert_eq!(read("queries"), "made queries");
    assert_eq!(read("count"), "made n");
    assert_eq!(read("count.log"), "made log");
    assert_eq!(read("count@base.log"), "made log");
}

#[test]
fn wrong_names_are_corrected_in_hints() {
    let place = Place::new();
    let message = |text| place.message(place.find(text).err());
    insta::assert_snapshot!(message("qeries"), @r"
    error: the pipeline has no stage `qeries`
      = help: did you mean `queries`?
    ");
    insta::assert_snapshot!(message("count.model"), @r"
    error: stage `count` has no output `model`
      = help: there is `n` and `log`
    ");
    insta::assert_snapshot!(message("count@fast.n"), @r"
    error: the pipeline has no stage `count@fast.n`
      = help: did you mean `count@base`?
    ");
}

#[test]
fn a_stage_without_a_result_is_named_with_what_computes_it() {
    let place = Place::new();
    let error = place.find("count").err();
    assert_eq!(error.as_ref().unwrap().exit_code(), 1);
    insta::assert_snapshot!(place.message(error), @r"
    error: stage `queries` has no result in the cache, and `count` needs it
      = help: `genius run p.yaml --target count` computes it
    ");
    place.compute(1);
    insta::assert_snapshot!(place.message(place.find("count").err()), @r"
    error: stage `count` has no result in the cache
      = help: `genius run p.yaml --target count` computes it
    ");
    let wanted = Wanted {
        stage: "train".into(),
        variant: Some("sweep:lr=1e-6".into()),
        output: None,
    };
    let mut args = place.args.clone();
    args.set = vec!["a b=c".into()];
    assert_eq!(
        run_command(&args, &wanted),
        "genius run p.yaml --set 'a b=c' --variant sweep:lr=1e-6 --target train"
    );
}

/// A file that someone overwrote through its folder is noticed, although its size is right.
#[test]
fn damage_is_not_copied() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.compute(2);
    let found = place.find("count").unwrap();
    let folder = lay_out(&place.store, &found).unwrap();
    let file = folder.join("deep/x.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "MADE n").unwrap();

    let error = place.message(lay_out(&place.store, &found).err());
    let hash = found.tree.files[0].hash.to_string();
    let error = error.replace(&hash, "HASH").replace(&hash[..2], "HH");
    insta::assert_snapshot!(error, @r"
    error: the result of stage `count` is damaged and was removed: blob HASH of the cache is damaged (its content has another hash): DIR/cache/blobs/HH/HASH
      = help: `genius run p.yaml --target count` computes it again
    ");
    // The next run computes it again, and so does not need the word of anyone.
    insta::assert_snapshot!(place.message(place.find("count").err()), @r"
    error: stage `count` has no result in the cache
      = help: `genius run p.yaml --target count` computes it
    ");
    place.compute(2);
    let found = place.find("count").unwrap();
    assert!(is_sound(
        &lay_out(&place.store, &found).unwrap(),
        &found.tree
    ));
}

#[test]
fn a_copy_is_complete_writable_and_independent() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new();
    place.compute(2);
    let found = place.find("count").unwrap();
    let folder = lay_out(&place.store, &found).unwrap();
    let target = place.dir.path().join("new/copy");
    copy(&folder, &found.tree, &target).unwrap();
    let file = target.join("deep/x.txt");
    let there = fs::metadata(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "made n");
    assert_eq!(there.permissions().mode() & 0o777, 0o644);
    assert_eq!(there.nlink(), 1);
    // Nothing else is left beside it.
    assert_eq!(
        fs::read_dir(place.dir.path().join("new")).unwrap().count(),
        1
    );

    insta::assert_snapshot!(place.message(copy(&folder, &found.tree, &target).err()), @r"
    error: DIR/new/copy is not empty: nothing was copied
      = help: choose a folder that is missing or empty
    ");
    insta::assert_snapshot!(place.message(copy(&folder, &found.tree, &file).err()), @r"
    error: DIR/new/copy/deep/x.txt is not a folder: nothing was copied
      = help: choose a folder that is missing or empty
    ");
    let empty = place.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    copy(&folder, &found.tree, &empty).unwrap();
    assert!(empty.join("deep/x.txt").is_file());
}

/// The tree names more than the folder has: nothing is left at the target.
#[test]
fn a_partial_copy_is_removed() {
    let place = Place::new();
    place.compute(2);
    let found = place.find("count").unwrap();
    let folder = place.dir.path().join("half");
    fs::create_dir_all(folder.join("deep")).unwrap();
    let target = place.dir.path().join("target");
    let error = copy(&folder, &found.tree, &target).unwrap_err();
    assert!(matches!(error, CliError::Io { .. }));
    assert!(!target.exists());

    fs::write(folder.join("deep/x.txt"), "other").unwrap();
    insta::assert_snapshot!(place.message(copy(&folder, &found.tree, &target).err()), @r"
    error: the copy DIR/target/deep/x.txt does not match its source: the disk or memory may be faulty
      = help: nothing was left behind; try again
    ");
    assert!(!target.exists());
}

#[test]
fn a_link_replaces_a_link_and_nothing_else() {
    let place = Place::new();
    let link = place.dir.path().join("model");
    for folder in ["one", "two"] {
        make_link(&place.dir.path().join(folder), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), place.dir.path().join(folder));
    }
    insta::assert_snapshot!(place.message(make_link(place.dir.path(), &place.dir.path().join("p.yaml")).err()), @r"
    error: DIR/p.yaml is not a symbolic link: it was left alone
      = help: choose a path that does not exist, or an old link
    ");
}

#[test]
fn a_branch_is_the_commit_that_the_newest_run_found() {
    let place = Place::new();
    let commit = |c: &str| c.repeat(40);
    for (run, found) in [("20260101T000000-a", "1"), ("20260102T000000-b", "2")] {
        let folder = place.store.runs_dir().join(run);
        fs::create_dir_all(&folder).unwrap();
        let plan = json!({"stages": [{
            "stage": "policy",
            "params": {"source": {"hub": {"repo": "o/m", "revision": commit(found)}}},
            "sources": {"hub_revision": "main"},
        }]});
        fs::write(folder.join("pipeline.json"), plan.to_string()).unwrap();
    }
    let inner = SystemResolver {
        hub_endpoint: None,
        hub_token: None,
        hub_cache: Some(place.dir.path().join("hub")),
        variables: BTreeMap::new(),
        memory: None,
    };
    let offline = Offline {
        inner: &inner,
        known: known_commits(place.store.clone()),
    };
    assert_eq!(offline.hub_commit("o/m", "main").unwrap(), commit("2"));
    assert_eq!(
        offline.hub_commit("x/y", &commit("3")).unwrap(),
        commit("3")
    );
    let error = offline.hub_commit("x/y", "main").map_err(CliError::from);
    insta::assert_snapshot!(place.message(error.err()), @r"
    error: cannot determine which commit `main` of x/y is: no run of this cache has resolved it, and read-only commands do not use the network
      = help: check the repository's name and the network; a private one needs HF_TOKEN; a full commit as `revision` needs no network here
    ");
}
