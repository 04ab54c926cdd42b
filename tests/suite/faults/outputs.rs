//! Programs that put something else in the place of their outputs: links, second names
//! of files, other folders, mounts; at once, or from behind while the output is kept.
//! A person's folder, to which all of it leads, keeps every byte, mode and time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Lab, Values, end_of, sound, words};

/// What a program does at its end. `$o` is its output with the files `a`, `d/b` and
/// `d/c`, `$i` its input, `$m` the person's folder. After the first link nothing is
/// written: it would be the program that writes there.
const ENDS: [&str; 22] = [
    ":",
    "rm -r $o; ln -s $m $o",
    "rm -r $o; ln -s ../../../../mine $o",
    "rm -r $o; ln -s $m/a $o",
    "rm -r $o; ln -s /no/such $o",
    "rm -r $o; ln -s $i $o",
    "rm -r $o; ln -s $i/../../blobs $o",
    "rm -r $o; mkfifo $o",
    "ln -s $m $o/link",
    "ln -s $m/a $o/d/link",
    "ln -s . $o/d/loop",
    "rm -r $o/d; ln -s $m $o/d",
    "ln $m/a $o/second",
    "ln $m/d/b $o/d/second; ln $m/d/b $o/third",
    "ln $i/x $o/d/second",
    "rm $o/a; ln $m/a $o/a",
    "mkfifo $o/d/pipe",
    "mv ${o%/o} ${o%/o}.away; ln -s $m ${o%/o}",
    "mv $o $o.away; mkdir $o; echo x > $o/a",
    "p=${o%/output/o}; mv $p $p.away; ln -s $m $p",
    "chmod 0 $o/d/b; chmod 0 $o/d",
    "chmod 444 $o/a; chmod 555 $o/d $o",
];

/// The same with mounts, where that is allowed.
const MOUNTS: [&str; 4] = [
    "mount --bind $m $o",
    "mkdir $o/m; mount --bind $m $o/m",
    "mount --bind $m/a $o/a",
    "mount --bind $m ${o%/o}",
];

/// What goes on behind: each puts something in a place for a moment, and back.
const SWAPS: [&str; 4] = [
    "mv $o $o.o && ln -s $m $o; rm -f $o; mv $o.o $o",
    "mv $o/d $o.d && ln -s $m $o/d; rm -f $o/d; mv $o.d $o/d",
    "mv $o/a $o.a && ln -s $m/a $o/a; rm -f $o/a; mv $o.a $o/a",
    "mv $o/d/b $o.b && ln $m/d/b $o/d/b; rm -f $o/d/b; mv $o.b $o/d/b",
];

#[test]
fn no_output_leads_out_of_its_folder() {
    let mut lab = Lab::new(5);
    let mine = lab.path("mine");
    make(&mine);
    let before = picture(&mine);
    let unshare = Command::new("unshare").args(["-m", "true"]).status();
    let mounts = unshare.is_ok_and(|status| status.success());
    let (mut kept, mut refused) = (0, 0);
    let values = Values { seed: 8, extra: 8 };
    for round in 0..Lab::rounds(60) {
        let mounted = mounts && lab.random.below(6) == 0;
        // With a swap the end does nothing: it would write through the swapped link itself.
        let swap = (!mounted && lab.random.below(3) == 0).then(|| *lab.random.pick(&SWAPS));
        let end = match (mounted, swap) {
            (true, _) => *lab.random.pick(&MOUNTS),
            (false, None) => *lab.random.pick(&ENDS),
            (false, Some(_)) => ":",
        };
        let what = format!(
            "GENIUS_FAULT_SEED={} round {round}: {end}, behind: {swap:?}",
            lab.seed
        );
        let script = script(&mine, end, swap, lab.random.below(30));
        fs::write(lab.path("odd.yaml"), pipeline(round, &script)).expect("a file");
        let mut command = run(&lab, mounted);
        let said = end_of(&mut command);
        sound(&said, || what.clone());
        match said.status.code() {
            Some(0) => kept += 1,
            Some(1) => refused += 1,
            _ => panic!("{what}: {}", words(&said)),
        }
        assert!(
            picture(&mine) == before,
            "{what}: {:#?} instead of {before:#?}",
            picture(&mine)
        );
        lab.verify("cache", &what);
        if said.status.success() {
            let said = end_of(&mut lab.genius(&["out", "odd.yaml", "s"], "cache"));
            let folder = lab.folder(&said).unwrap_or_else(|e| panic!("{what}: {e}"));
            for (name, text) in super::files(&folder) {
                let text = String::from_utf8_lossy(&text).into_owned();
                let known = text == format!("{round} {name}\n") || text.ends_with(" of mine\n");
                assert!(
                    known || text == "input\n" || text == "x\n",
                    "{what}: {name}: {text}"
                );
            }
        }
        // Now and then the cache is used by what has nothing to do with it.
        if round % 20 == 19 {
            let said = end_of(&mut lab.run(values, "cache"));
            assert!(said.status.success(), "{what}: {}", words(&said));
            lab.compare(values, "cache", &what);
        }
    }
    assert!(
        kept > 0 && refused > kept / 4,
        "{kept} kept, {refused} refused"
    );
    assert!(picture(&mine) == before);
}

fn run(lab: &Lab, mounted: bool) -> Command {
    let args = ["run", "odd.yaml", "--allow-commands", "--quiet"];
    let genius = lab.genius(&args, "cache");
    if !mounted {
        return genius;
    }
    let mut command = Command::new("unshare");
    command
        .arg("-m")
        .arg(genius.get_program())
        .args(genius.get_args())
        .current_dir(lab.dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a PATH"));
    command
}

fn script(mine: &Path, end: &str, swap: Option<&str>, hundredths: usize) -> String {
    let behind = swap.map_or_else(String::new, |swap| {
        format!(
            "export o m; setsid sh -c 'n=0; while [ $n -lt 150 ]; do n=$((n + 1)); {swap}; done' > /dev/null 2>&1 & sleep 0.{hundredths:02}; "
        )
    });
    format!("m={}; {behind}{{ {end}; }} || :", mine.display())
}

fn pipeline(round: usize, end: &str) -> String {
    let end = end.replace("${", "$${");
    format!(
        "version: 1
name: odd
stages:
  input: {{ uses: command, with: {{ run: ['echo input > {{outputs.o}}/x'], shell: true, outputs: {{ o: {{}} }} }} }}
  s:
    uses: command
    needs: {{ i: input }}
    with:
      shell: true
      run:
        - |
          o={{outputs.o}}; i={{inputs.i}}; mkdir $o/d
          for f in a d/b d/c; do echo {round} $f > $o/$f; done
          {end}
      outputs: {{ o: {{}} }}
"
    )
}

/// A person's folder: files of several modes and times, in which the names of outputs
/// occur too.
fn make(mine: &Path) {
    for (name, mode) in [
        ("a", 0o600),
        ("d/b", 0o755),
        ("d/c", 0o444),
        ("o/a", 0o640),
        ("output/o/a", 0o644),
    ] {
        let path = mine.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, format!("{name} of mine\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    fs::set_permissions(mine.join("d"), fs::Permissions::from_mode(0o750)).expect("a mode");
}

/// Everything in a folder, with content, mode and time.
fn picture(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let m = fs::symlink_metadata(&path).expect("it is there");
        let content = if m.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            left.extend(entries.map(|e| e.expect("an entry").path()));
            String::new()
        } else if m.is_file() {
            fs::read_to_string(&path).expect("a file")
        } else {
            "something else".to_owned()
        };
        let words = format!("{:o} {}.{} {content}", m.mode(), m.mtime(), m.mtime_nsec());
        found.insert(path, words);
    }
    found
}
