"""Makes docs/compatibility.md from the results of published clients.

    compatibility.py RESULTS.json ... > docs/compatibility.md

The results are what `scenarios_modern.py --json` writes, for releases from 1.0 on, and what the
conformance kit's `run.py --json` writes, for those before. A table has a row for each scenario and a
column for each release: yes, no with a number that the reasons below it have, or nothing where the
release has no such scenario.
"""

import json
import sys
from collections import defaultdict

HEAD = """\
# Published clients

What unmodified clients of each release of `slim-bindings` (PyPI) did through this node, one process
for each client. Made by `tests/clients/compatibility.py` from the results of a run; how to run it
again is said at the end.

Clients of different columns are in different families, but for 0.4 with 0.5, the releases 0.6, those
from 0.7 to 1.4, and those from 2.0: families cannot hold sessions with each other, on no node, since
what they say to each other is not the same. Native apps of this project are in the family of 0.6.
"""

RELEASES = """\
## Releases

| releases of slim-bindings | dialect | served |
|---|---|---|
| 0.3.6 | older than all below | no: refused with a status that says that it is too old |
| 0.4.0, 0.4.1, 0.5.0 | P | yes |
| 0.6.0, 0.6.1, 0.6.2, 0.6.3 | D6 | yes |
| 0.7.0, 0.7.1 | D7 | by their schema: they are published as source only, and were not run |
| 1.0.0 to 1.2.0 | D7 | yes |
| 1.3.0 to 1.4.1 | D7 with links and acknowledgements | yes |
| 2.0.0 to 2.2.0, 3.3.1 to 3.3.8 | D20 | yes |

Each of them that has a wheel was run. Those without a column below held an encrypted point-to-point
session and an encrypted group, and were not asked for more.
"""

TAIL = """\
## Again

```sh
cargo build --release
for release in 1.0.0 1.4.1 2.2.0 3.3.8; do
  python3 tests/clients/scenarios_modern.py --version $release --endpoint http://127.0.0.1:47100 \\
    --node-cmd 'target/release/slim --listen {listen}' --json $release.json
done
python3 tests/clients/compatibility.py *.json > docs/compatibility.md
```

Results of the conformance kit for 0.4 to 0.6 are given to the last command in the same way.
"""

PASSED = {"passed", "pass", "ok"}
# What the runner itself leaves out says nothing of a release.
LEFT_OUT = {"skipped", "skip", "-"}


def entries(results):
    """Scenario, release, status and reason of each result, whichever runner wrote it."""
    for entry in results["results"] if isinstance(results, dict) else results:
        release = entry.get("release") or entry["version"]
        yield entry["scenario"], release, entry["status"], entry.get("reason") or entry.get("message")


def order(release):
    return [int(part) for part in release.split(".")]


def table(rows, releases):
    """The table of these releases, and the reasons for what failed."""
    reasons, lines = [], []
    lines.append("| | " + " | ".join(releases) + " |")
    lines.append("|---" * (len(releases) + 1) + "|")
    for scenario in rows:
        cells = []
        for release in releases:
            status, reason = rows[scenario].get(release, ("-", None))
            if status in PASSED:
                cells.append("yes")
            elif status in LEFT_OUT:
                cells.append("")
            else:
                reason = " ".join((reason or status).split())
                if reason not in reasons:
                    reasons.append(reason)
                cells.append(f"no ({reasons.index(reason) + 1})")
        if any(cells):
            lines.append(f"| {scenario} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join(lines + ([""] + notes if notes else []))


def main():
    groups = {"0.4 to 0.6": defaultdict(dict), "1.0 to 3.3": defaultdict(dict)}
    for path in sys.argv[1:]:
        with open(path) as file:
            for scenario, release, status, reason in entries(json.load(file)):
                group = "0.4 to 0.6" if release.startswith("0.") else "1.0 to 3.3"
                groups[group][scenario][release] = (status, reason)
    print(HEAD)
    print(RELEASES)
    for title, rows in groups.items():
        if rows:
            releases = sorted({release for row in rows.values() for release in row}, key=order)
            print(f"## Scenarios of {title}\n\n{table(rows, releases)}\n")
    print(TAIL, end="")


if __name__ == "__main__":
    main()
