"""Networks of nodes, with groups of release 0.6 spread over them, counted and disturbed.

    network.py --slim PATH --controller PATH --slimctl PATH [--native PATH] [--scenario NAME]...

Scenarios, all of them unless some are named:

    managed     nodes that only slim-controller joins: an encrypted group, created and filled with
                slimctl, has members on all nodes, and each publishes --messages messages. Each has
                to arrive once at every other member, and nothing else.
    peers       the same on nodes that --peer links with each other, each with each; a member
                moderates the group.
    kills       as `managed`, while slim-controller and each node are killed --kills times each, in
                any order at random moments. Two operators create and delete channels and routes,
                and add and remove participants, all the time. In the end all that was acknowledged must be
    kept, and the group take one more member, and let it go.
    flaps       as `peers`, while one node is killed --kills times.

With --native, the example `group` of this project, each node has such a member too in `managed` and
`peers`, over QUIC. The first member is the moderator, on the first node.

Prints one line of JSON with all results, and what goes on to standard error. In `managed` and `peers`
it has for each member how many messages it should have got ("expected") and got ("received"), "lost",
"duplicated" and "foreign" ones: of another channel, or that nobody published. In `kills` and `flaps`:

    traffic     the same in sums. "lost" are those between members of nodes that both were up, also
                while another one or the controller was away; "lost_at_killed_nodes" the others, which
                no one promised. "gaps" has for each kill the longest time in seconds in which a
                member on another node heard nothing of another such member; "gap_without_kills" is
                the longest before the first kill. Each must be shorter than that and --gap together.
    converged   how long it took, in seconds, from the start of the program that was killed. After
                the controller, until all nodes are connected and all routes that are wanted are
                applied and there; after a node, until its member heard of all others something that was
                published after the start, and they of it, and with a controller the same as there.
    changes     how many changes were acknowledged, and why others were not
    machine     the longest time in which this program did not get to run, which is what a gap
                may come from too

"faults" has in words all that must not be. The status is 0 if there are none, 1 if there are some, and
2 if nothing could be run. Needs Python 3.11 and the published package of release 0.6.3.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time

import network_count as count
import releases
from network_churn import Churn
from network_parts import PATIENCE, RELEASE, Network, Refused, eventually
from processes import Failed

GROUP = "network/live/group"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Run:
    """One scenario: its network, the members of its group, and what was found."""

    def __init__(self, options, managed):
        self.options = options
        self.network = Network(options, managed)
        self.random = random.Random(options.seed)
        self.members, self.windows, self.faults = [], [], []
        self.converged = {}
        self.channel = GROUP
        self.stalled = 0.0

    async def watch_machine(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            self.stalled = max(self.stalled, time.monotonic() - before - 0.05)

    async def gather_group(self, per_node, native):
        """Members on all nodes, all in one group, which have heard each other."""
        network, nodes = self.network, range(self.options.nodes)
        names = [(node, f"network/live/member-{node}-{of}") for node in nodes for of in range(per_node)]
        for node, name in names[1:]:
            self.members.append(await network.member(node, name))
        for node in nodes if native else []:
            name = f"network/live/native-{node}"
            self.members.append(await network.native_member(node, name))
        invited = [member.name for member in self.members]
        group = [] if network.operator else [GROUP, *invited]
        moderator = await network.member(*names[0], *group)
        self.members.insert(0, moderator)
        if network.operator:
            # The control plane knows whom it invites once their nodes have told.
            await eventually("the group is created", self.created)
            for name in invited:
                await network.operator.add(self.channel, name)
        await self.greet()

    async def created(self):
        try:
            self.channel = await self.network.operator.create(self.members[0].full_name)
        except Refused as refused:
            return str(refused)

    async def greet(self):
        python = [member for member in self.members if hasattr(member, "full_name")]
        for member in python:
            await member.line(f"in {self.channel}", PATIENCE)
        for member in self.members:
            member.order("greet", self.channel)
        for member in self.members:
            for other in self.members:
                if other is not member:
                    await member.heard(other, self.channel)
        say(f"{len(self.members)} members have heard each other")

    def order_all(self, *order):
        for member in self.members:
            member.order(*order)

    async def reports(self):
        return {member.name: await member.report() for member in self.members}

    async def settled(self):
        """Reports, once nothing is missing any more, or nothing has come for long."""
        reports, received = {}, -1
        while True:
            reports = await self.reports()
            found = count.pairs(self.members, self.channel, reports)
            now = sum(len(pair.arrivals) for pair in found)
            if now == received or not any(pair.lost() for pair in found):
                return reports, found
            received = now
            await asyncio.sleep(5)

    def must(self, holds, fault):
        if not holds:
            say(f"FAULT {fault}")
            self.faults.append(fault)

    def check_servers(self):
        for server in self.network.servers():
            self.must(server.alive(), f"{server.label} ended by itself; {server.told()[-3:]}")
            told = [line for line in server.told() if "panicked" in line]
            self.must(not told, f"{server.label}: {told}")
        # The package drops what comes back to its sender, and what comes twice.
        for member in self.members:
            echoes = [line for line in member.logged() if "message from self" in line]
            self.must(not echoes, f"{member.label}: {len(echoes)} of its messages came back to it")


async def exactly_once(run):
    """Everybody publishes so many messages."""
    options = run.options
    await run.network.start()
    await run.gather_group(options.members, options.native)
    run.order_all("count", run.channel, options.rate, options.messages)
    long = options.messages / options.rate
    for member in run.members:
        await member.line(f"done {run.channel}", 3 * long + PATIENCE)
    reports, _ = await run.settled()
    counts = count.of_each(run.members, run.channel, reports)
    for name, each in counts.items():
        for bad in ("lost", "duplicated", "foreign"):
            run.must(not each[bad], f"{name}: {each[bad]} {bad} of {each['expected']}")
        run.must(each["received"] and each["sent"] == options.messages, f"{name}: {each}")
    return {"members": counts}


async def kill(run, server):
    """Kills a server, starts it again, and waits until all is well."""
    await asyncio.sleep(run.random.uniform(0.3, 2.5))
    window = count.Window(server.label, await server.kill())
    run.windows.append(window)
    await asyncio.sleep(run.random.uniform(0.1, 2.0))
    window.started = await server.listen()
    waits = {"control plane": routes_are_applied(run)} if run.network.operator else {}
    if server is not run.network.controller:
        waits["traffic"] = traffic_flows(run, server, window.started)
    took = await asyncio.gather(*waits.values(), return_exceptions=True)
    window.well = time.time()
    for what, end in zip(waits, took):
        if isinstance(end, Failed):
            run.must(False, f"after kill {len(run.windows)}, of {server.label}: {end}")
        elif isinstance(end, BaseException):
            raise end
        else:
            run.converged.setdefault(f"{server.label} {what}", []).append(end - window.started)


async def traffic_flows(run, node, since):
    """Waits until the node's members hear the others, and they them."""
    here = [member for member in run.members if run.network.nodes[member.node] is node]
    there = [member for member in run.members if run.network.nodes[member.node] is not node]
    run.order_all("since", since)
    ways = [(one, other) for one in here for other in there]
    ways += [(other, one) for one, other in ways]
    await asyncio.gather(*(one.reached(since, other, PATIENCE) for one, other in ways))
    return time.time()


async def routes_are_applied(run):
    """Waits until all nodes are connected, and have all routes that are wanted for good."""
    await eventually("all nodes are connected", run.network.all_connected)
    return await eventually("routes are applied", lambda: missing_routes(run))


async def missing_routes(run):
    """What is not as it should be."""
    operator, nodes = run.network.operator, run.network.nodes
    endpoints = {node.label: node.endpoint for node in nodes}
    live = {
        (node.label, run.channel, None, other.label)
        for node in nodes for other in nodes if node is not other
    }
    for member in run.members:
        name, _, number = member.full_name.rpartition("/")
        here = nodes[member.node]
        live |= {(node.label, name, number, here.label) for node in nodes if node is not here}
    there, gone = run.churn.wanted()
    try:
        outline = await operator.outline()
        held = {
            (node.label, *route) for node in nodes for route in await operator.routes(node.label)
        }
    except Refused as refused:
        return str(refused)
    # Meanwhile operators have gone on.
    there_now, gone_now = run.churn.wanted()
    wanted, unwanted = live | (there & there_now), gone & gone_now
    held_as = {key: (*key[:3], endpoints[key[3]]) for key in wanted | unwanted}
    missing = [
        key for key in wanted if outline.get(key) != "APPLIED" or held_as[key] not in held
    ]
    missing += [("not", *key) for key in unwanted if key in outline or held_as[key] in held]
    return f"{len(missing)} routes, such as {missing[:2]}" if missing else None


async def disturbed(run, targets):
    """Kills the targets while the group goes on, and counts."""
    options = run.options
    run.order_all("begin", run.channel, options.rate)
    begin = time.time()
    await asyncio.sleep(options.quiet)
    baseline = (begin + 1, time.time())
    for number, target in enumerate(targets, 1):
        await kill(run, target)
        window = run.windows[-1]
        say(f"{number} of {len(targets)}: {target.label} back after {window.well - window.started:.2f} s")
    await asyncio.sleep(2)
    run.order_all("stop", run.channel)
    reports, found = await run.settled()
    traffic = count.through_kills(found, run.windows, baseline)
    traffic["foreign"] = sum(report["foreign"]["count"] for report in reports.values())
    for bad in ("lost", "duplicated", "unsent", "foreign"):
        run.must(not traffic[bad], f"{traffic[bad]} messages {bad}")
    bound = traffic["gap_without_kills"] + options.gap
    for label, gaps in traffic["gaps"].items():
        run.must(max(gaps) <= bound, f"nothing came for {max(gaps)} s while {label} was away")
    for label, gaps in traffic["gaps"].items():
        traffic["gaps"][label] = count.spread(gaps)
    run.must(all(pair.numbers for pair in found), "a member has heard nothing of another")
    converged = {what: count.spread(times) for what, times in run.converged.items()}
    traffic["errors"] = {name: report["errors"] for name, report in reports.items()}
    return {"traffic": traffic, "converged": converged, "kills": len(run.windows)}


async def kills(run):
    """The controller and all nodes, while operators work."""
    options, network = run.options, run.network
    await network.start()
    await run.gather_group(1, None)
    apps = [
        await network.member(node, f"network/churn/app-{node}-{of}")
        for node in range(options.nodes) for of in range(2)
    ]
    run.churn = Churn(network, apps, run.random)
    targets = [server for server in network.servers() for _ in range(options.kills)]
    run.random.shuffle(targets)
    result = await disturbed(run, targets)
    await run.churn.stop()
    await routes_are_applied(run)
    for fault in await run.churn.faults([run.channel]):
        run.must(False, fault)
    await one_comes_and_goes(run)
    journal = run.churn.journal
    result["changes"] = {"acknowledged": journal.acknowledged, "refused": journal.refused}
    return result


async def one_comes_and_goes(run):
    """The group that has gone through all that can still be managed."""
    operator, invited = run.network.operator, [member.name for member in run.members[1:]]
    participants = await operator.participants(run.channel)
    run.must(participants == invited, f"the group's participants are {participants}")
    late = await run.network.member(run.options.nodes - 1, "network/live/late")

    async def added():
        try:
            await operator.add(run.channel, late.name)
        except Refused as refused:
            return str(refused)

    await eventually("one more is added", added)
    run.members.append(late)
    await run.greet()
    await operator.remove(run.channel, late.name)
    participants = await operator.participants(run.channel)
    run.must(participants == invited, f"after one has gone they are {participants}")


async def flaps(run):
    """One node of a mesh."""
    await run.network.start()
    await run.gather_group(1, None)
    flapping = run.random.choice(run.network.nodes)
    return await disturbed(run, [flapping] * run.options.kills)


SCENARIOS = {
    "managed": (exactly_once, True),
    "peers": (exactly_once, False),
    "kills": (kills, True),
    "flaps": (flaps, False),
}


async def play(name, options):
    scenario, managed = SCENARIOS[name]
    say(f"{name}: {options.nodes} nodes, seed {options.seed}")
    run, begin = Run(options, managed), time.monotonic()
    watching = asyncio.create_task(run.watch_machine())
    result = {"nodes": options.nodes, "seed": options.seed}
    try:
        result |= await scenario(run)
    except (Failed, Refused) as failure:
        run.must(False, str(failure))
    finally:
        watching.cancel()
        run.check_servers()
        if run.faults:
            show_logs(run, name)
        with contextlib.suppress(Failed):
            await run.network.end()
    result["machine"] = round(run.stalled, 3)
    result["seconds"] = round(time.monotonic() - begin, 1)
    return result | {"faults": run.faults}


def show_logs(run, name):
    """Keeps all that was logged, or shows the end of it."""
    for process in [*run.network.servers(), *run.network.members]:
        if run.options.logs:
            os.makedirs(run.options.logs, exist_ok=True)
            file = f"{run.options.logs}/{name}-{process.label.replace('/', '-')}.log"
            with open(file, "w") as out:
                out.write("\n".join([*process.told(), *process.lines]))
            continue
        for line in process.told()[-15:]:
            print(f"    {process.label}: {line[:300]}", file=sys.stderr)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slim", default="target/debug/slim", help="the program, as all others")
    parser.add_argument("--controller", default="target/debug/slim-controller")
    parser.add_argument("--slimctl", default="target/debug/slimctl")
    parser.add_argument("--native", help="the example `group`")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--members", type=int, default=2, help="on each node, in managed and peers")
    parser.add_argument("--messages", type=int, default=1000, help="of each member")
    parser.add_argument("--rate", type=float, default=8, help="messages a second of each member")
    parser.add_argument("--kills", type=int, default=20, help="of each server")
    parser.add_argument("--quiet", type=float, default=20, help="seconds before the first kill")
    parser.add_argument("--gap", type=float, default=2, help="seconds; see above")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--logs", help="a folder for what all have logged, if there are faults")
    return parser.parse_args()


def main():
    options = parse()
    try:
        releases.python(RELEASE)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"release {RELEASE} cannot be had: {error}", file=sys.stderr)
        sys.exit(2)
    programs = [options.slim, options.controller, options.slimctl, options.native]
    if missing := [each for each in programs if each and not os.access(each, os.X_OK)]:
        print(f"there is no program {missing}", file=sys.stderr)
        sys.exit(2)
    names = options.scenario or list(SCENARIOS)
    results = {name: asyncio.run(play(name, options)) for name in names}
    print(json.dumps(results), flush=True)
    sys.exit(any(result["faults"] for result in results.values()))


if __name__ == "__main__":
    main()
