"""Published releases, each in a virtual environment of its own.

They are made once, below `$SLIM_CONFORMANCE_CACHE` (default `~/.cache/slim-conformance`), which
needs the package index.
"""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def python(release):
    """The interpreter that has `slim-bindings` of this release."""
    cache = os.environ.get("SLIM_CONFORMANCE_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "slim-conformance"
    home = root / "envs" / release
    interpreter, complete = home / "bin" / "python", home / ".complete"
    if complete.exists():
        return str(interpreter)
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(root / f"{release}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            install = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
            subprocess.run([str(interpreter), *install, f"slim-bindings=={release}"], check=True)
            complete.touch()
    return str(interpreter)


def family(release):
    """Which of the three published interfaces the release has."""
    major, minor = (int(part) for part in release.split(".")[:2])
    if major:
        return "modern"
    if minor in (4, 5):
        return "first"
    if minor == 6:
        return "second"
    raise SystemExit(f"no client for release {release}")
