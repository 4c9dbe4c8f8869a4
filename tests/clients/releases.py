"""Published releases, and what calls a controller, each in a virtual environment of its own.

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
    return environment(release, "--only-binary", ":all:", f"slim-bindings=={release}")


def calls():
    """The interpreter that has what the documents' calls of a controller are written with."""
    return environment("grpc", "grpcio", "grpcio-tools", "protobuf")


def environment(name, *packages):
    """The interpreter of the environment of this name, in which packages are as for `pip install`."""
    cache = os.environ.get("SLIM_CONFORMANCE_CACHE")
    root = Path(cache) if cache else Path.home() / ".cache" / "slim-conformance"
    home = root / "envs" / name
    interpreter, complete = home / "bin" / "python", home / ".complete"
    if complete.exists():
        return str(interpreter)
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            install = ["-m", "pip", "install", "--quiet", *packages]
            subprocess.run([str(interpreter), *install], check=True)
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
