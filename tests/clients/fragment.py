"""Runs one of fragments.md.

    fragment.py PROTO HEADING [OLD=NEW]...

PROTO is the folder of the schemas, from which the modules that the fragment imports are made. OLD stands in the fragment, which has no
other options: addresses, and names of apps and channels.
"""

import re
import sys
import tempfile
import textwrap
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
SCHEMAS = ["grpc_api/grpc_api.proto", "controlplane/v1/controlplane.proto"]


def fragment(heading):
    _, section = (HERE / "fragments.md").read_text().split(f"## {heading}\n")
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def main(folder, heading, *changes):
    text = fragment(heading)
    for change in changes:
        old, new = change.split("=", 1)
        if old not in text:
            raise SystemExit(f"{old} is not in it")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as modules:
        known = Path(grpc_tools.__file__).parent / "_proto"
        options = [f"-I{folder}", f"-I{known}", f"--python_out={modules}", f"--grpc_python_out={modules}"]
        if protoc.main(["protoc", *options, *SCHEMAS]):
            raise SystemExit("the schemas cannot be read")
        sys.path.insert(0, modules)
        # One of them returns: they are meant for the body of a function.
        scope = {}
        exec("def run():\n" + textwrap.indent(text, "    "), scope)
        scope["run"]()


main(*sys.argv[1:])
