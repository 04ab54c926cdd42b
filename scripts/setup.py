#!/usr/bin/env python3
"""Sets up what Genius is built and tested with, once for each user.

    setup.py env        print shell lines: LIBTORCH, CARGO_TARGET_DIR, ...
    setup.py libtorch   fetch libtorch and lay it out; prints its folder

Everything lies in a per-user cache folder (GENIUS_HOME, else
XDG_CACHE_HOME/genius, else ~/.cache/genius), in folders named by version, so
that every checkout shares it and a new clone rebuilds nothing. Downloads go
through pip with pinned versions and verified hashes; a broken one is tried
again, and then explained. Needs only Python 3.8 and pip.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
# Raised when the layout of the folder changes.
LIBTORCH = "libtorch-2.13.0-cpu-1"
TRIES = 3

# Wheel platform tags for `pip download`, newest first.
PLATFORMS = {
    ("Linux", "x86_64"): [
        "manylinux_2_28_x86_64",
        "manylinux_2_27_x86_64",
        "manylinux_2_25_x86_64",
        "manylinux2014_x86_64",
        "manylinux_2_17_x86_64",
    ],
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"setup: {text}")
    sys.exit(1)


def home():
    """The per-user cache folder."""
    # A relative folder counts as not set, as in genius itself.
    for name, below in (
        ("GENIUS_HOME", ""),
        ("XDG_CACHE_HOME", "genius"),
        ("HOME", ".cache/genius"),
    ):
        folder = os.environ.get(name, "")
        if os.path.isabs(folder):
            return Path(folder, below).resolve()
    fail("there is no home folder; set GENIUS_HOME, or HOME, to an absolute path")


def build_key():
    """Names a build folder: one made for another processor can die of SIGILL
    (target-cpu=native), one of another compiler is dead weight."""
    parts = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        for name in ("model name", "flags", "Features"):
            parts += [line for line in lines if line.startswith(name)][:1]
    except OSError:
        parts.append(platform.processor())
    try:
        rustc = shutil.which("rustc", path=search_path()) or "/rustc is not in PATH"
        # In the current folder: a toolchain file there says which compiler is meant.
        parts.append(subprocess.run([rustc, "-vV"], check=True, capture_output=True, text=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        fail("rustc was not found: install a Rust toolchain first (https://rustup.rs)")
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def lock(folder):
    """One setup at a time. The kernel drops the lock with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "setup.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def apart(folder):
    """For a program that is started: an empty folder to run in, and an environment in
    which neither PATH nor Python looks at a folder that somebody else may fill. Python
    would import what lies in the current folder (`pip.py`). pip's own settings stay."""
    empty = Path(folder) / "empty"
    empty.mkdir(mode=0o700, exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables["PATH"] = search_path()
    return {"cwd": empty, "env": variables}


def search_path():
    """The entries of PATH that are absolute."""
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if os.path.isabs(entry))


def pip_download(requirements, into, tags):
    """Fetches the wheels of a requirements file, hashes verified by pip."""
    command = [
        sys.executable, "-I", "-m", "pip", "download",
        "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
        "--require-hashes", "--dest", str(into), "-r", str(requirements),
    ]
    if tags:
        command += ["--python-version", "3.11", "--implementation", "cp"]
        for tag in tags:
            command += ["--platform", tag]
    for attempt in range(1, TRIES + 1):
        result = subprocess.run(command, capture_output=True, text=True, **apart(Path(into).parent))
        if result.returncode == 0:
            return
        if attempt < TRIES:
            say(f"setup: the download failed (try {attempt} of {TRIES}); trying again")
            time.sleep(5 * attempt)
    last = "\n".join("    " + line for line in result.stderr.strip().splitlines()[-6:])
    if "No module named pip" in result.stderr:
        fail(
            "this Python has no pip: install it (for example `apt-get install python3-pip`);\n"
            "  one that is installed for a user alone (`pip install --user`) is not used"
        )
    fail(
        f"pip could not fetch {requirements.name} in {TRIES} tries. Its last words:\n{last}\n"
        "  If that is a network error, check the connection and pip's index settings and run the same\n"
        "  command again; pip keeps what it had whole. If it is a hash mismatch, what the index served is\n"
        "  not what this version of Genius was tested with: do not use it, and report it."
    )


def libtorch():
    """The libtorch folder: `include/`, `lib/`."""
    system = (platform.system(), platform.machine())
    target = home() / LIBTORCH
    if target.is_dir():
        return target
    if system not in PLATFORMS:
        fail(
            f"no libtorch recipe for {system[0]} on {system[1]} yet: set LIBTORCH to a libtorch 2.13.0\n"
            "  folder (or LIBTORCH_USE_PYTORCH=1 with torch 2.13.0 installed) and run the command again"
        )
    with lock(home()):
        if target.is_dir():
            return target
        free = shutil.disk_usage(home()).free
        if free < 3 << 30:
            fail(f"{home()} has {free >> 20} MiB free; libtorch needs 3 GiB while it is unpacked")
        say("setup: fetching libtorch 2.13.0 from PyPI (530 MB, once for this user)")
        with tempfile.TemporaryDirectory(dir=home(), prefix="libtorch-") as work:
            work = Path(work)
            pip_download(SCRIPTS / "libtorch-linux-x86_64.txt", work / "wheels", PLATFORMS[system])
            say("setup: unpacking libtorch")
            made = work / "made"
            (made / "lib").mkdir(parents=True)
            wanted = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
            for wheel in sorted((work / "wheels").glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    for name in archive.namelist():
                        path = Path(name)
                        if path.is_absolute() or ".." in path.parts:
                            fail(f"{wheel.name} holds {name}, which leads out of it: do not use it")
                        if name.startswith("torch/include/") and not name.endswith("/"):
                            to = made / "include" / path.relative_to("torch/include")
                        elif path.name in wanted and path.parent.name == "lib":
                            to = made / "lib" / path.name
                            wanted.discard(path.name)
                        else:
                            continue
                        to.parent.mkdir(parents=True, exist_ok=True)
                        with archive.open(name) as source, open(to, "wb") as sink:
                            shutil.copyfileobj(source, sink, 1 << 20)
            if wanted:
                fail(f"the wheels lack {', '.join(sorted(wanted))}")
            # torch-sys links `-ltorch`; the wheel's own libtorch.so would ask for CUDA.
            (made / "lib" / "libtorch.so").write_text("INPUT(-ltorch_cpu -lc10)\n")
            made.rename(target)
    return target


def env():
    """Shell lines that a Makefile evals. What the user set already stays."""
    lines = [("GENIUS_HOME", home()), ("GENIUS_PYTHON", sys.executable)]
    if not os.environ.get("LIBTORCH") and not os.environ.get("LIBTORCH_USE_PYTORCH"):
        lines.append(("LIBTORCH", libtorch()))
    if not os.environ.get("CARGO_TARGET_DIR"):
        lines.append(("CARGO_TARGET_DIR", home() / f"build-{build_key()}"))
    return "\n".join(f"export {name}='{value}'" for name, value in lines)


def main():
    what = sys.argv[1] if len(sys.argv) == 2 else ""
    if what not in ("env", "libtorch"):
        say(__doc__)
        sys.exit(2)
    try:
        print({"env": env, "libtorch": libtorch}[what]())
    except OSError as error:
        fail(f"{error}")


if __name__ == "__main__":
    main()
