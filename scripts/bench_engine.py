#!/usr/bin/env python3
"""The engine's speed beside DVC's and b3sum's, in one run (`make bench-engine`).

    bench_engine.py --genius PATH [--quick] [--only noop,first,hash,plan]

What is measured, the sides taking turns and each figure the median of several:

  noop   nothing to do, on chains and fans of 10, 200 and 2,000 stages
  first  200 stages of `true` with one shared input: what a stage costs
  hash   a file of 4 GiB (--gib) as an input, planned for the first time
  plan   a fan of 10,000 stages planned, and the memory that it takes

Prints a table with the goals beside the figures and writes bench/out/engine.json.
A `vs` is the peer's time over ours. Nothing passes or fails by a clock.

The peers are installed under bench/peers/: DVC with pip into a virtual
environment, b3sum with cargo; where cargo cannot, the blake3 package of Python
stands in. Needs Python 3.9. Everything else lies in a temporary folder (--tmp).
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
DVC = "3.67.1"
B3SUM = "1.8.2"
BLAKE3 = "1.0.11"

# The key in engine.json, how it should compare, the goal.
GOALS = {
    "noop_ms_10": ("<", 20),
    "noop_ms_200": ("<", 60),
    "noop_ms_2000": ("<", 600),  # linear: ten times that of 200
    "noop_vs_dvc_200": (">", 50),
    "first_run_vs_dvc_200": (">", 10),
    "plan_10000_ms": ("<", 1000),
    "plan_10000_mb": ("<", 200),
}


def say(text=""):
    print(text, flush=True)


def fail(text):
    print(f"bench-engine: {text}", file=sys.stderr)
    sys.exit(1)


# ---- running programs -------------------------------------------------------


class Ran:
    """One run of a program: seconds, peak memory in MB (10^6 bytes), what it said."""

    def __init__(self, argv, cwd, env=None):
        with tempfile.TemporaryFile() as out:
            start = time.perf_counter()
            child = subprocess.Popen(
                [str(a) for a in argv],
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(child.pid, 0)
            self.seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            self.text = out.read().decode(errors="replace")
        scale = 1 if sys.platform == "darwin" else 1024
        self.peak_mb = usage.ru_maxrss * scale / 1e6
        if child.returncode:
            fail(f"{' '.join(map(str, argv))}\n  ended with {child.returncode}:\n{self.text[-3000:]}")


def median(values):
    return statistics.median(values)


class Genius:
    """Our side. Every pipeline has a folder; its cache lies beside it."""

    def __init__(self, program):
        self.program = Path(program).resolve()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("GENIUS_")}

    def __call__(self, command, folder, *options, cache="cache"):
        argv = [self.program, command, "p.yaml", "--cache", cache, *options]
        return Ran(argv, folder, self.env)

    def run(self, folder, *options, cache="cache"):
        return self("run", folder, "--allow-commands", *options, cache=cache)

    def counts(self, folder):
        """How many stages of one more run were executed, and how many reused."""
        report = json.loads(self.run(folder, "--quiet", "--json").text.splitlines()[-1])
        status = [s["status"] for s in report["stages"]]
        return status.count("executed"), status.count("cached")


class Dvc:
    """The peer, without telemetry and with its state in the folder itself."""

    def __init__(self, program):
        self.program = program

    def __call__(self, folder, *args):
        env = dict(os.environ, DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=str(folder / ".site"))
        env["PATH"] = f"{self.program.parent}{os.pathsep}{env['PATH']}"
        return Ran([self.program, *args], folder, env)

    def init(self, folder):
        folder.mkdir(parents=True)
        self(folder, "init", "--no-scm", "--quiet")
        self(folder, "config", "core.analytics", "false")
        self(folder, "config", "core.check_update", "false")


# ---- peers ------------------------------------------------------------------


def install_dvc():
    venv = PEERS / "venv"
    program = venv / "bin" / "dvc"
    wanted = f"dvc=={DVC} blake3=={BLAKE3}\n"
    stamp = venv / "installed"
    if not (stamp.is_file() and stamp.read_text() == wanted):
        say(f"installing {wanted.strip()} into {venv.relative_to(ROOT)}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted.split()], check=True)
        stamp.write_text(wanted)
    return program


def install_b3sum():
    """The program, or None where cargo cannot build it."""
    folder = PEERS / f"b3sum-{B3SUM}"
    program = folder / "bin" / "b3sum"
    if not program.is_file():
        say(f"building b3sum {B3SUM} into {folder.relative_to(ROOT)}")
        argv = ["cargo", "install", "b3sum", "--locked", "--version", B3SUM, "--quiet"]
        env = {k: v for k, v in os.environ.items() if k != "CARGO_TARGET_DIR"}
        with contextlib.suppress(OSError):
            subprocess.run([*argv, "--root", str(folder)], env=env, cwd=PEERS)
    return program if program.is_file() else None


# ---- pipelines of both sides ------------------------------------------------


def write_ours(folder, stages):
    """`stages`: (name, argv, need or None, whether it has an output)."""
    folder.mkdir(parents=True)
    (folder / "seed.txt").write_text("seed\n")
    lines = ["version: 1", "name: bench", "stages:"]
    for name, argv, need, output in stages:
        lines += [f"  {name}:", "    uses: command"]
        if need:
            lines.append(f"    needs: {{ src: {need}.data }}")
        lines += ["    with:", f"      run: {json.dumps(argv)}"]
        if not need:
            lines.append("      files: { seed: seed.txt }")
        lines.append(f"      outputs: {'{ data: {} }' if output else '{}'}")
    (folder / "p.yaml").write_text("\n".join(lines) + "\n")


def ours(folder, shape, n):
    """A chain or a fan of `n` stages, each with one file that is like no other."""
    stages = []
    for i in range(n):
        need = f"s{i - 1}" if shape == "chain" and i else None
        source = "{inputs.src}/x" if need else "{files.seed}"
        command = f"cat {source} > {{outputs.data}}/x; echo {i} >> {{outputs.data}}/x"
        stages.append((f"s{i}", ["sh", "-c", command], need, True))
    write_ours(folder, stages)


def theirs(dvc, folder, shape, n):
    """The same for DVC, with plain files as outputs (what it is fastest at)."""
    dvc.init(folder)
    (folder / "seed.txt").write_text("seed\n")
    lines = ["stages:"]
    for i in range(n):
        source = f"x{i - 1}" if shape == "chain" and i else "seed.txt"
        command = f"cat {source} > x{i}; echo {i} >> x{i}"
        lines += [f"  s{i}:", f"    cmd: {json.dumps(command)}"]
        lines += ["    deps:", f"    - {source}", "    outs:", f"    - x{i}"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")


def ours_true(folder, n):
    # The argument, which `true` ignores, makes them different stages.
    write_ours(folder, [(f"s{i}", ["true", str(i)], None, False) for i in range(n)])


def theirs_true(dvc, folder, n):
    dvc.init(folder)
    (folder / "seed.txt").write_text("seed\n")
    stages = "".join(f"  s{i}:\n    cmd: true {i}\n    deps:\n    - seed.txt\n" for i in range(n))
    (folder / "dvc.yaml").write_text("stages:\n" + stages)


# ---- measures ---------------------------------------------------------------


def noop(bench):
    """Nothing to do."""
    genius, dvc, facts = bench.genius, bench.dvc, bench.facts
    for n in bench.noop_sizes:
        for shape in ("chain", "fan"):
            mine = bench.tmp / f"noop-{shape}-{n}"
            ours(mine, shape, n)
            first = genius.run(mine, "--quiet").seconds
            facts[f"first_run_s_{n}_{shape}"] = first
            peer = None
            if dvc and n <= 200:
                peer = bench.tmp / f"noop-dvc-{shape}-{n}"
                theirs(dvc, peer, shape, n)
                facts[f"dvc_first_run_s_{n}_{shape}"] = dvc(peer, "repro", "--quiet").seconds
            times, peers, pairs = [], [], bench.rounds if n <= 200 else max(3, bench.rounds // 2)
            for _ in range(pairs):
                times += [genius.run(mine).seconds for _ in range(3)]
                if peer:
                    peers.append(dvc(peer, "repro"))
            if genius.counts(mine) != (0, n):
                fail(f"{mine}: something was executed, so this is no measure of nothing to do")
            if any("up to date" not in p.text for p in peers):
                fail(f"{peer}: DVC found something to do:\n{peers[0].text[-1000:]}")
            facts[f"noop_ms_{n}_{shape}"] = median(times) * 1000
            if peers:
                theirs_s = median([p.seconds for p in peers])
                facts[f"dvc_noop_ms_{n}_{shape}"] = theirs_s * 1000
                facts[f"noop_vs_dvc_{n}_{shape}"] = theirs_s / median(times)
        facts[f"noop_ms_{n}"] = max(facts[f"noop_ms_{n}_{s}"] for s in ("chain", "fan"))
        if f"noop_vs_dvc_{n}_fan" in facts:
            facts[f"noop_vs_dvc_{n}"] = min(facts[f"noop_vs_dvc_{n}_{s}"] for s in ("chain", "fan"))


def first(bench):
    """The first run of stages that do nothing: what the engine costs for each."""
    genius, dvc, facts, n = bench.genius, bench.dvc, bench.facts, 200
    mine, peer = bench.tmp / "first", bench.tmp / "first-dvc"
    ours_true(mine, n)
    if dvc:
        theirs_true(dvc, peer, n)
    times, single, peers, spawns = [], [], [], []
    for i in range(bench.rounds):
        times += [genius.run(mine, cache=f"cache-{i}").seconds]
        single += [genius.run(mine, "--jobs", "1", cache=f"cache-one-{i}").seconds]
        spawns.append(spawn_true(n))
        if dvc and i < bench.slow_rounds:
            fresh = bench.tmp / f"first-dvc-{i}"
            shutil.copytree(peer, fresh)
            peers.append(dvc(fresh, "repro").seconds)
    spawn = median(spawns)
    facts["first_run_ms_per_stage"] = median(times) / n * 1000
    facts["first_run_one_job_ms_per_stage"] = median(single) / n * 1000
    facts["spawn_true_ms"] = spawn / n * 1000
    if peers:
        theirs_s = median(peers)
        facts["dvc_first_run_ms_per_stage"] = theirs_s / n * 1000
        facts["first_run_vs_dvc_200"] = theirs_s / median(times)
        facts["first_run_one_job_vs_dvc_200"] = theirs_s / median(single)
        # One after the other on both sides, each without what 200 times `true` cost.
        if median(single) > spawn:
            facts["first_run_without_true_vs_dvc_200"] = (theirs_s - spawn) / (median(single) - spawn)


def spawn_true(n):
    program, start = shutil.which("true"), time.perf_counter()
    for i in range(n):
        os.waitpid(os.posix_spawn(program, ["true", str(i)], os.environ), 0)
    return time.perf_counter() - start


def hashing(bench):
    """A large file as an input, seen for the first time; the page cache is warm."""
    genius, dvc, facts = bench.genius, bench.dvc, bench.facts
    size = int(bench.gib * 2**30)
    needed, free = size * (2 if dvc else 1) + 2**30, shutil.disk_usage(bench.tmp).free
    if free < needed:
        bench.notes.append(
            f"hash: skipped, {bench.tmp} has {free / 2**30:.1f} GiB free and "
            f"{needed / 2**30:.1f} are needed (--gib makes the file smaller, --tmp takes another disk)"
        )
        return
    mine = bench.tmp / "hash"
    write_ours(mine, [("s", ["true"], None, False)])
    (mine / "seed.txt").unlink()
    file = mine / "seed.txt"
    with open(file, "wb") as out:
        for _ in range(0, size, 2**24):
            out.write(os.urandom(min(2**24, size - out.tell())))
    b3sum = install_b3sum()
    stand_in = [PEERS / "venv" / "bin" / "python", "-c", BLAKE3_STAND_IN, file]
    rival = [b3sum, file] if b3sum else stand_in if dvc else None
    if not b3sum:
        bench.notes.append("b3sum could not be built: the blake3 package of Python stands in (mmap, all threads)")
    sides = {"hash": [], "b3sum": [], "read": [], "cold": []}
    for i in range(bench.slow_rounds):
        sides["read"].append(read_all(file, size))
        os.utime(file)
        time.sleep(0.1)  # older than the clock's granularity
        sides["hash"].append(genius("plan", mine, cache=f"cache-{i}").seconds)
        if rival:
            sides["b3sum"].append(Ran(rival, mine).seconds)
    gb = size / 1e9
    facts["hash_gib"] = bench.gib
    facts["hash_gb_s"] = gb / median(sides["hash"])
    facts["read_gb_s"] = gb / median(sides["read"])
    if rival:
        facts["b3sum_gb_s"] = gb / median(sides["b3sum"])
        facts["hash_vs_b3sum"] = median(sides["b3sum"]) / median(sides["hash"])
    if dvc:
        for name, flag in (("dvc_add_gb_s", []), ("dvc_add_no_commit_gb_s", ["--no-commit"])):
            times = []
            for i in range(bench.slow_rounds):
                folder = bench.tmp / f"add-{'-'.join(flag)}{i}"
                dvc.init(folder)
                os.rename(file, folder / "seed.txt")
                os.utime(folder / "seed.txt")
                times.append(dvc(folder, "add", "--quiet", *flag, "seed.txt").seconds)
                os.rename(folder / "seed.txt", file)
                shutil.rmtree(folder)
            facts[name] = gb / median(times)
        facts["hash_vs_dvc_add"] = facts["hash_gb_s"] / facts["dvc_add_gb_s"]
    file.unlink()


BLAKE3_STAND_IN = """
import sys, blake3
h = blake3.blake3(max_threads=blake3.blake3.AUTO)
h.update_mmap(sys.argv[1])
print(h.hexdigest())
"""


def read_all(file, size):
    """Seconds to read it with a thread a core, into buffers that fit the processor's cache."""
    cores, step = os.cpu_count() or 1, 2**18
    fd = os.open(file, os.O_RDONLY)

    def read(part):
        buffer, at = memoryview(bytearray(step)), part * size // cores
        while at < (part + 1) * size // cores:
            at += os.preadv(fd, [buffer], at)

    threads = [threading.Thread(target=read, args=(p,)) for p in range(cores)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(fd)
    return time.perf_counter() - start


def plan(bench):
    """A fan of 10,000 stages, planned with an empty cache."""
    folder, facts = bench.tmp / "plan", bench.facts
    ours(folder, "fan", 10_000)
    runs = [bench.genius("plan", folder, "--json") for _ in range(bench.rounds)]
    facts["plan_10000_ms"] = median([r.seconds for r in runs]) * 1000
    facts["plan_10000_mb"] = max(r.peak_mb for r in runs)


MEASURES = {"noop": noop, "first": first, "hash": hashing, "plan": plan}


# ---- the report -------------------------------------------------------------


def machine():
    facts = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts["processor"] = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory_gb"] = round(pages / 1e9, 1)
        facts["load_at_start"] = round(os.getloadavg()[0], 2)
    return facts


def table(facts, notes):
    say()
    for key, value in facts.items():
        goal = ""
        if key in GOALS:
            sign, number = GOALS[key]
            met = value < number if sign == "<" else value > number
            goal = f"goal {sign} {number:,}{'' if met else '   (not met)'}"
        figure = f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 20 else f"{value:.2f}"
        say(f"  {key:<36} {figure:>10}   {goal}".rstrip())
    for note in notes:
        say(f"  note: {note}")


class Bench:
    """What the measures share: programs, sizes, the folder, the figures."""

    def __init__(self, options, tmp):
        self.tmp = tmp
        self.genius = Genius(options.genius)
        self.dvc = None if options.no_dvc else Dvc(install_dvc())
        self.rounds = options.rounds or (3 if options.quick else 7)
        self.slow_rounds = min(self.rounds, 1 if options.quick else 3)
        self.noop_sizes = (10, 200) if options.quick else (10, 200, 2000)
        self.gib = options.gib or (0.5 if options.quick else 4)
        self.facts = {}
        self.notes = []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--genius", required=True, help="the program, built with --release")
    parser.add_argument("--quick", action="store_true", help="few rounds, no 2,000 stages, half a GiB")
    parser.add_argument("--only", default=",".join(MEASURES), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, help="how often each is measured")
    parser.add_argument("--gib", type=float, help="size of the file that is hashed [4]")
    parser.add_argument("--tmp", help="where to make the temporary folder")
    parser.add_argument("--no-dvc", action="store_true", help="our side alone")
    parser.add_argument("--out", default=str(ROOT / "bench" / "out" / "engine.json"))
    options = parser.parse_args()
    only = options.only.split(",")
    if unknown := [o for o in only if o not in MEASURES]:
        fail(f"--only {','.join(unknown)}: there are {', '.join(MEASURES)}")
    if not Path(options.genius).is_file():
        fail(f"no program at {options.genius}: `make build` first")
    PEERS.mkdir(parents=True, exist_ok=True)
    host = machine()
    with tempfile.TemporaryDirectory(prefix="bench-engine-", dir=options.tmp) as tmp:
        bench = Bench(options, Path(tmp))
        for name in only:
            say(f"{name}: {MEASURES[name].__doc__.splitlines()[0]}")
            MEASURES[name](bench)
        genius = Ran([bench.genius.program, "--version"], tmp).text.strip()
    table(bench.facts, bench.notes)
    versions = {"genius": genius, "dvc": DVC if bench.dvc else None, "b3sum": B3SUM}
    report = {
        **bench.facts,
        "goals": {k: f"{s} {n}" for k, (s, n) in GOALS.items()},
        "notes": bench.notes,
        "machine": host,
        "versions": versions,
        "rounds": bench.rounds,
    }
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    say(f"\nwritten to {out}")


if __name__ == "__main__":
    main()
