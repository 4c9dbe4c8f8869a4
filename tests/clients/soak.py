"""Traffic of clients of several releases through one node, counted.

    soak.py --versions 0.5.0,0.6.3,1.4.1,3.3.8 --clients 8 --group 3 \\
        --endpoint http://127.0.0.1:46357 --seconds 600

Per release, the clients are pairs that talk in a reliable session, every other pair encrypted: one
publishes, at some messages a second, and the other answers each. Besides, some more are an
encrypted group in which everyone publishes (not in 0.4 and 0.5). Each message tells its release,
sender, target and number, and all of its bytes follow from that. For https, `SOAK_CA` names the file
with the authority that signed the node's certificate.

Prints one line of JSON for each release: how many copies were "sent", that is, should arrive, and
were "received"; "lost", "duplicated", "foreign" (of another release, or for somebody else) and
"damaged" ones; "sessions" and "errors" of the clients. The status is 1 if there are any of the bad
ones. With --same-names all releases use the same names, which is for releases that share no
routing space: one each of 0.4 and 0.5, of 0.6, of 1, and of 2 and 3.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys

import releases
from processes import Failed, Process

BAD = ("lost", "duplicated", "foreign", "damaged")


class Client(Process):
    def __init__(self, part):
        super().__init__(f"{part['release']} {part['name']}")
        self.part = part

    async def open(self):
        script = str(releases.HERE / "soak_worker.py")
        interpreter = releases.python(self.part["release"])
        await self.start(interpreter, script, json.dumps(self.part))
        await self.line("ready", 60)

    async def heard_all(self, seconds):
        for other in self.part["others"]:
            await self.line(f"heard {other}", seconds)

    def write(self, line):
        self.child.stdin.write(line.encode() + b"\n")

    async def report(self):
        # Reports are long; only the last one is kept.
        self.lines = [line for line in self.lines if not line.startswith("{")]
        self.write("report")
        await self.until("report", lambda: self.lines and self.lines[-1][0] == "{", 30)
        return json.loads(self.lines[-1])


def parts(release, options, run):
    """The clients of a release; those that wait come first."""
    space = f"soak/{run}" if options.same_names else f"soak/{run}-{release}"
    common = {"release": release, "largest": options.largest}
    waiting, opening = [], []

    def part(role, label, target, others, encrypted, **more):
        others = [f"{space}/{other}" for other in others]
        return common | {
            "name": f"{space}/{label}", "role": role, "target": f"{space}/{target}",
            "others": others, "encrypted": encrypted, **more,
        }

    for number in range(options.clients // 2):
        caller, answerer = f"caller-{number}", f"answerer-{number}"
        encrypted = number % 2 == 0
        waiting.append(part("answer", answerer, caller, [caller], encrypted))
        opening.append(part("call", caller, answerer, [answerer], encrypted))
    if options.group > 1 and releases.family(release) != "first":
        members = [f"member-{number}" for number in range(options.group)]
        first, *others = members
        for member in others:
            rest = [each for each in members if each != member]
            waiting.append(part("member", member, "channel", rest, True))
        names = [f"{space}/{each}" for each in others]
        opening.append(part("moderate", first, "channel", others, True, members=names))
    # Of two nodes, those who talk in a pair are at one each.
    count = len(options.endpoints)
    for shift, group in enumerate([waiting, opening]):
        for number, each in enumerate(group):
            each["endpoint"] = options.endpoints[(number + shift) % count]
    return waiting, opening


def summary(release, reports):
    """The counts of a release, from what each of its clients reports."""
    sent = {report["name"]: report["sent"] for report in reports}
    counts = {"family": release, "sent": 0, "received": 0, "lost": 0, "duplicated": 0}
    for report in reports:
        for sender, heard in report["heard"].items():
            counts["sent"] += sent[sender]
            counts["received"] += heard["count"]
            counts["lost"] += max(0, sent[sender] - heard["count"])
            counts["duplicated"] += heard["again"]
    for key in ("foreign", "damaged", "sessions", "errors"):
        counts[key] = sum(report[key] for report in reports)
    counts["reasons"] = [reason for report in reports for reason in report["reasons"]][:5]
    return counts


async def summaries(clients):
    found = {}
    for client in clients:
        found.setdefault(client.part["release"], []).append(await client.report())
    return [summary(release, reports) for release, reports in found.items()]


async def settle(clients, seconds):
    """Waits for what is under way."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        await asyncio.sleep(2)
        found = await summaries(clients)
        late = asyncio.get_running_loop().time() > deadline
        if late or not any(each["lost"] for each in found):
            return found


async def start(clients):
    """Opens all, and waits until each has heard those it is to hear."""
    for client in clients:
        await client.open()
    for client in clients:
        await client.heard_all(120)


async def soak(options):
    for release in options.versions:
        releases.python(release)
    run = os.urandom(4).hex()
    waiting, opening = [], []
    for release in options.versions:
        ours = parts(release, options, run)
        waiting += ours[0]
        opening += ours[1]
    clients = [Client(part) for part in waiting + opening]
    try:
        await start(clients)
        print(f"{len(clients)} clients", file=sys.stderr, flush=True)
        for client in clients:
            client.write(f"go {options.rate}")
        end = asyncio.get_running_loop().time() + options.seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left, options.every))
            for counts in await summaries(clients):
                print("so far", json.dumps(counts), file=sys.stderr, flush=True)
        for client in clients:
            client.write("stop")
        return await settle(clients, options.settle)
    except Failed as failure:
        for client in clients:
            for line in client.told():
                print(f"{client.label}: {line}", file=sys.stderr)
        sys.exit(f"{failure}")
    finally:
        for client in clients:
            with contextlib.suppress(Failed):
                await client.finish()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", default="0.5.0,0.6.3,1.4.1,3.3.8")
    parser.add_argument(
        "--endpoint", default="http://127.0.0.1:46357", help="of a node, or of several, with commas"
    )
    parser.add_argument("--clients", type=int, default=8, help="in pairs, per release")
    parser.add_argument("--group", type=int, default=3, help="in a group, per release")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2, help="messages a second, per publisher")
    parser.add_argument("--largest", type=int, default=65536, help="bytes of a payload")
    parser.add_argument("--settle", type=float, default=30, help="seconds for what is under way")
    parser.add_argument("--every", type=float, default=60, help="seconds between interim counts")
    parser.add_argument("--same-names", action="store_true")
    options = parser.parse_args()
    options.versions = options.versions.split(",")
    options.endpoints = options.endpoint.split(",")
    found = asyncio.run(soak(options))
    for counts in found:
        print(json.dumps(counts), flush=True)
    sys.exit(any(counts[bad] for counts in found for bad in BAD))


if __name__ == "__main__":
    main()
