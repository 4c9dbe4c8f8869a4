#!/usr/bin/env python3
"""Runs the node of a published release, so that it can be measured beside ours.

    upstream_node.py --cache DIR --listen 127.0.0.1:PORT [--release 0.6.3]

The first run makes a virtual environment in DIR and installs the wheel there; later runs use
it. The script replaces its process, so its process id is the node's. Ends on SIGTERM.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import venv
from pathlib import Path

INSTALLED = "SLIM_BENCH_WHEEL_INSTALLED"


def python_with_wheel(cache, release):
    home = Path(cache) / f"slim-bindings-{release}"
    python, complete = home / "bin" / "python", home / "complete"
    if not complete.exists():
        venv.create(home, clear=True, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        wheel = ["--only-binary", ":all:", f"slim-bindings=={release}"]
        subprocess.run([*pip, *wheel], check=True, stdout=sys.stderr)
        complete.touch()
    return python


async def run(listen):
    import slim_bindings

    # Errors only: a log line per message would be measured as well.
    started = slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
    if asyncio.iscoroutine(started) or asyncio.isfuture(started):
        await started
    # The API wants an identity even of a node, which never uses it.
    secret = {"identity": "bench", "shared_secret": "not-used-but-must-be-32-bytes-long"}
    node = await slim_bindings.Slim.new(
        slim_bindings.PyName("bench", "node", "upstream"),
        slim_bindings.PyIdentityProvider.SharedSecret(**secret),
        slim_bindings.PyIdentityVerifier.SharedSecret(**secret),
        local_service=True,
    )
    await node.run_server({"endpoint": listen, "tls": {"insecure": True}})
    await asyncio.Event().wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--release", default="0.6.3")
    args = parser.parse_args()
    if os.environ.get(INSTALLED) != args.release:
        try:
            python = str(python_with_wheel(args.cache, args.release))
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"slim-bindings {args.release} cannot be installed: {error}")
        environment = {**os.environ, INSTALLED: args.release}
        os.execve(python, [python, *sys.argv], environment)
    asyncio.run(run(args.listen))


if __name__ == "__main__":
    main()
