//! Several `genius` on one cache: a stage is computed once while its holder
//! lives, and taken over when it does not.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::super::project::{FAR, until};
use super::{Lab, all_files, end_of, keys};

/// A `genius run` in the background, with what it says in files.
struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn start(lab: &Lab, name: &str, lease_secs: u32) -> Self {
        let (out, err) = (
            lab.path(&format!("{name}.out")),
            lab.path(&format!("{name}.err")),
        );
        let child = lab
            .genius(
                &["run", "together.yaml", "--allow-commands", "--json"],
                "cache",
            )
            .env("GENIUS_LEASE_SECS", lease_secs.to_string())
            .stdout(Stdio::from(File::create(&out).expect("a file")))
            .stderr(Stdio::from(File::create(&err).expect("a file")))
            .spawn()
            .expect("genius starts");
        Self { child, out, err }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("a signal");
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).expect("its stderr")
    }

    /// Waits for its end, at most this long.
    #[track_caller]
    fn end_within(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a state") {
                return status;
            }
            assert!(
                started.elapsed() < limit,
                "still there after {limit:?}: {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a good end, at most this long; its report.
    #[track_caller]
    fn report_within(&mut self, limit: Duration) -> Value {
        let status = self.end_within(limit);
        assert!(status.success(), "{status}: {}", self.stderr());
        let text = std::fs::read_to_string(&self.out).expect("its stdout");
        serde_json::from_str(text.lines().last().unwrap_or_default()).expect("a report")
    }

    /// Waits until it says for whom it waits.
    #[track_caller]
    fn until_it_waits_for(&self, holder: &Self) {
        let id = holder.child.id().to_string();
        until("it says for whom it waits", || {
            let said = self.stderr();
            said.contains("wait") && said.contains(&id)
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failed test leaves nobody behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A chain and a side branch; each command tells the file `counter` that it ran.
/// The first execution of `slow` alone takes `slow_secs`.
fn together(slow_secs: u32) -> Lab {
    let lab = Lab::new(5);
    let stage = |name: &str, needs: &str, more: &str| {
        format!(
            "  {name}:\n    uses: command\n{needs}    with:\n      shell: true\n      run:\n        - |\n          \
             echo {name} >> {counter}\n          {more}\n          echo result of {name} > {{outputs.data}}/x\n      \
             outputs: {{ data: {{}} }}\n",
            counter = lab.path("counter").display(),
        )
    };
    let first = lab.path("first");
    let sleep = format!(
        "if mkdir {} 2>/dev/null; then sleep {slow_secs}; fi",
        first.display()
    );
    let text = [
        "version: 1\nname: together\nstages:\n".to_owned(),
        stage("slow", "", &sleep),
        stage("side", "", "sleep 0.2"),
        stage("after", "    needs: { src: slow }\n", "sleep 0.2"),
        stage("end", "    needs: { l: after, r: side }\n", ""),
    ];
    std::fs::write(lab.path("together.yaml"), text.concat()).expect("a file");
    lab
}

/// How often each stage was executed.
fn executions(lab: &Lab, stage: &str) -> usize {
    let text = std::fs::read_to_string(lab.path("counter")).unwrap_or_default();
    text.lines().filter(|line| *line == stage).count()
}

#[track_caller]
fn check_cache(lab: &Lab) {
    lab.verify("cache", "several on one cache");
    for stage in ["slow", "side", "after", "end"] {
        let said = end_of(&mut lab.genius(&["out", "together.yaml", stage], "cache"));
        assert!(said.status.success(), "{}", super::words(&said));
        let folder = lab.path(String::from_utf8_lossy(&said.stdout).trim());
        let text = std::fs::read_to_string(folder.join("x")).expect("the result");
        assert_eq!(text, format!("result of {stage}\n"));
    }
    // What a killed run left goes with the next one.
    Running::start(lab, "last", 10).report_within(FAR);
    let left = all_files(&lab.path("cache").join("tmp"));
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn two_runs_together_compute_each_stage_once() {
    for _ in 0..3 {
        let lab = together(1);
        let mut runs = [
            Running::start(&lab, "one", 10),
            Running::start(&lab, "two", 10),
        ];
        let executed: Vec<String> = runs
            .iter_mut()
            .flat_map(|run| keys(&run.report_within(FAR), "executed"))
            .collect();
        assert_eq!(executed.len(), 4, "{executed:?}");
        for stage in ["slow", "side", "after", "end"] {
            assert_eq!(executions(&lab, stage), 1, "{stage}");
        }
        check_cache(&lab);
    }
}

#[test]
fn a_paused_holder_is_taken_over_and_ends_well_afterwards() {
    let lab = together(2);
    let mut holder = Running::start(&lab, "holder", 1);
    until("the stage runs", || executions(&lab, "slow") == 1);
    holder.signal(Signal::SIGSTOP);
    let mut second = Running::start(&lab, "second", 1);
    second.until_it_waits_for(&holder);
    let report = second.report_within(FAR);
    assert!(keys(&report, "executed").len() >= 3, "{report:#}");
    assert_eq!(executions(&lab, "slow"), 2);
    check_records(&lab);

    holder.signal(Signal::SIGCONT);
    holder.report_within(FAR);
    assert_eq!(executions(&lab, "slow"), 2);
    for stage in ["after", "end"] {
        assert_eq!(executions(&lab, stage), 1, "{stage} was there already");
    }
    check_cache(&lab);
}

/// While another run is still at it, `tmp/` is not empty; records are whole all the same.
fn check_records(lab: &Lab) {
    lab.verify("cache", "with a paused run beside it");
}

#[test]
fn a_killed_holder_is_taken_over_at_once() {
    // A lease that would outlast the test: it is the death that is seen.
    let lab = together(3);
    let mut holder = Running::start(&lab, "holder", 3600);
    until("the stage runs", || executions(&lab, "slow") == 1);
    let mut second = Running::start(&lab, "second", 3600);
    second.until_it_waits_for(&holder);
    holder.signal(Signal::SIGKILL);
    until("the stage runs again", || executions(&lab, "slow") == 2);
    // What nobody has asked after is not quite gone, and keeps its leftovers.
    holder.end_within(FAR);
    second.report_within(FAR);
    check_cache(&lab);
}

#[test]
fn an_interruption_ends_the_waiting_at_once() {
    let lab = together(20);
    let mut holder = Running::start(&lab, "holder", 10);
    until("the stages run", || executions(&lab, "slow") == 1);
    let mut second = Running::start(&lab, "second", 10);
    second.until_it_waits_for(&holder);
    // Its own stage, if it has one, is over by then: it only waits.
    std::thread::sleep(Duration::from_millis(700));
    second.signal(Signal::SIGINT);
    let status = second.end_within(FAR);
    assert!(
        holder.child.try_wait().expect("a state").is_none(),
        "it waits no longer"
    );
    assert_eq!(status.code(), Some(130), "{}", second.stderr());
    holder.report_within(FAR);
    assert_eq!(executions(&lab, "slow"), 1);
    check_cache(&lab);
}
