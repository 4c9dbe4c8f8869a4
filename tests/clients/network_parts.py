"""What a network is made of: nodes, a controller, who operates it, and members of groups."""

import asyncio
import json
import os
import random
import signal
import socket
import tempfile
import time
from pathlib import Path

import releases
from processes import Failed, Process

SECRET = "a secret that all of the network share"
RELEASE = "0.6.3"
# No port of the range from which the system takes those of connections: one that tries again and
# again to reach a node that is down would in the end find itself.
PORTS = range(20_000, 32_000)
PATIENCE = 60


def unused_port(taken=set()):
    """A port on which nobody listens, and none that was given before."""
    while True:
        port = random.choice(PORTS)
        if port in taken:
            continue
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        taken.add(port)
        return port


class Server(Process):
    """A node or a controller, which can be killed and started again."""

    def __init__(self, label, command, ready):
        super().__init__(label)
        self.command, self.ready = command, ready

    async def listen(self):
        """Starts it. Returns when that was; it listens when this returns."""
        before, begun = self.times_ready(), time.time()
        await self.start(*self.command)
        await self.until("listening", lambda: self.times_ready() > before, PATIENCE)
        return begun

    def times_ready(self):
        return sum(self.ready in line for line in self.lines)

    async def kill(self):
        """Ends it at once. Returns when that was."""
        ended = time.time()
        await self.end(signal.SIGKILL)
        await self.reading
        return ended

    def told(self):
        return super().told() + self.lines[-15:]


class Node(Server):
    """A node, by the number of its place, and by the address of its clients and of other nodes."""

    def __init__(self, number, command, address):
        super().__init__(f"slim/{number}", command, "data plane ready")
        self.endpoint = f"http://{address}"


class Network:
    """Nodes that a controller makes links between, or that are all linked with each other."""

    def __init__(self, options, managed):
        self.folder = tempfile.TemporaryDirectory(prefix="slim-network-")
        self.options = options
        self.nodes, self.members = [], []
        self.controller = self.operator = None
        addresses = [f"127.0.0.1:{unused_port()}" for _ in range(options.nodes)]
        south = self.add_controller() if managed else None
        for number, address in enumerate(addresses):
            others = [other for other in addresses if other != address]
            command = self.managed(number, address, south) if managed else self.peer(address, others)
            self.nodes.append(Node(number, command, address))

    def file(self, name, text=""):
        path = Path(self.folder.name) / name
        path.write_text(text)
        return str(path)

    def add_controller(self):
        north, south = unused_port(), unused_port()
        database = Path(self.folder.name) / "controller.redb"
        file = self.file(
            "controller.yaml",
            f'northbound: {{ httpHost: "127.0.0.1", httpPort: {north} }}\n'
            f'southbound: {{ httpHost: "127.0.0.1", httpPort: {south} }}\n'
            f"logging: {{ level: INFO }}\ndatabase: {{ filePath: {database} }}\n",
        )
        command = [self.options.controller, "--config", file]
        ready = "Northbound API Service is listening on"
        self.controller = Server("slim-controller", command, ready)
        self.operator = Operator(self.options.slimctl, f"127.0.0.1:{north}")
        return south

    def managed(self, number, address, south):
        plaintext = "tls: { insecure: true }"
        text = (
            f'admin: "127.0.0.1:0"\nservices:\n  slim/{number}:\n    dataplane:\n'
            f'      servers: [{{ endpoint: "{address}", {plaintext} }}]\n      clients: []\n'
            f'    controller:\n      clients: [{{ endpoint: "http://127.0.0.1:{south}", {plaintext} }}]\n'
            f'      token_provider: {{ shared_secret: "{SECRET}" }}\n'
        )
        return [self.options.slim, "--config", self.file(f"slim-{number}.yaml", text)]

    def peer(self, address, others):
        peers = [part for other in others for part in ("--peer", f"http://{other}")]
        return [self.options.slim, "--listen", address, *peers]

    async def start(self):
        if self.controller:
            await self.controller.listen()
        for node in self.nodes:
            await node.listen()
        if self.operator:
            await eventually("all nodes are connected", self.all_connected)

    async def all_connected(self):
        states = await self.operator.nodes()
        wanted = {node.label: "CONNECTED" for node in self.nodes}
        return None if states == wanted else f"nodes are {states}"

    async def member(self, node, name, *group):
        member = Member(node, name, self.file(f"{name.replace('/', '-')}.json"))
        self.members.append(member)
        await member.open(self.nodes[node].endpoint, *group)
        return member

    async def native_member(self, node, name):
        member = NativeMember(node, name)
        self.members.append(member)
        await member.open(self.options.native, self.nodes[node].endpoint)
        return member

    def servers(self):
        return [*self.nodes, *([self.controller] if self.controller else [])]

    async def end(self):
        for process in [*self.members, *self.servers()]:
            await process.finish()
        self.folder.cleanup()


async def eventually(what, check, seconds=PATIENCE):
    """Asks until `check` finds nothing missing. Returns when that was."""
    deadline = time.monotonic() + seconds
    while missing := await check():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds} s: {what}; {missing}")
        await asyncio.sleep(0.05)
    return time.time()


class Refused(Exception):
    """A command that was not acknowledged."""

    # With these answers nothing was done.
    PLAIN = ("NotFound", "AlreadyExists", "InvalidArgument", "FailedPrecondition")

    def __init__(self, command, code, text):
        super().__init__(f"{' '.join(command)}: exit {code}: {' '.join(text.split())[:300]}")
        self.plain = code == 4 and any(f"code = {word}" in text for word in self.PLAIN)


class Operator:
    """Who manages the network, with slimctl."""

    def __init__(self, program, server):
        self.command = [program, "--server", server, "--timeout", "10s"]

    async def run(self, *command):
        child = await asyncio.create_subprocess_exec(
            *self.command, *command, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await child.communicate()
        if child.returncode:
            raise Refused(command, child.returncode, errors.decode(errors="replace"))
        return out.decode()

    async def ask(self, *command):
        return json.loads(await self.run(*command, "--output", "json"))

    async def nodes(self):
        """The state of each, none while the controller is away."""
        try:
            found = await self.ask("node", "list")
        except Refused as refused:
            return str(refused)
        return {node["id"]: node["status"] for node in found["nodes"]}

    async def create(self, moderator):
        answer = await self.run("channel", "create", f"moderators={moderator}")
        return answer.rpartition(": ")[2].strip()

    async def delete(self, channel):
        await self.run("channel", "delete", channel)

    async def add(self, channel, participant):
        await self.run("participant", "add", "-c", channel, participant)

    async def remove(self, channel, participant):
        await self.run("participant", "delete", "-c", channel, participant)

    async def channels(self):
        return (await self.ask("channel", "list"))["channels"]

    async def participants(self, channel):
        return (await self.ask("participant", "list", "-c", channel))["participants"]

    async def add_route(self, node, name, to):
        await self.run("route", "add", name, "via", to, "-n", node)

    async def delete_route(self, node, name, to):
        await self.run("route", "del", name, "via", to, "-n", node)

    async def outline(self):
        """(node, name, id, destination) and state of each route that is wanted."""
        routes = (await self.ask("route", "outline"))["routes"]
        keys = ("node", "name", "id", "destination")
        return {tuple(route[key] for key in keys): route["state"] for route in routes}

    async def routes(self, node):
        """(name, id, endpoint) of what a node reaches by others."""
        routes = (await self.ask("route", "list", "-n", node))["routes"]
        return {
            (route["name"], route["id"], remote["config"]["endpoint"])
            for route in routes
            for remote in route["remote"]
            if "endpoint" in remote["config"]
        }


class Member(Process):
    """A process of network_member.py."""

    def __init__(self, node, name, file):
        super().__init__(name)
        self.node, self.name, self.file = node, name, file

    async def open(self, endpoint, *group):
        script = str(releases.HERE / "network_member.py")
        await self.start(releases.python(RELEASE), script, endpoint, self.name, *group)
        await self.line("ready", PATIENCE)
        self.full_name = self.lines[0].removeprefix("name ")

    def order(self, *order):
        self.child.stdin.write(" ".join(map(str, order)).encode() + b"\n")

    async def heard(self, sender, channel):
        await self.line(f"heard {sender.name} {channel}", PATIENCE)

    async def reached(self, since, sender, seconds):
        await self.line(f"reached {since} {sender.name}", seconds)

    async def report(self):
        times = self.count("reported")
        self.order("report", self.file)
        await self.line("reported", PATIENCE, times + 1)
        return json.loads(Path(self.file).read_text())


class NativeMember(Process):
    """The example `group`, which has one session: it prints what it hears, and each line of its input
    behind its own name."""

    def __init__(self, node, name):
        super().__init__(name)
        self.node, self.name = node, name
        self.channel, self.sent, self.publishing = None, [], None
        self.arrivals, self.foreign = {}, []

    async def open(self, program, endpoint):
        # By QUIC, if the node serves it.
        endpoint = endpoint.replace("http://", "quic://")
        slim = json.dumps({"endpoint": endpoint, "tls": {"insecure_skip_verify": True}})
        options = ["--local", self.name, "--slim", slim, "--shared-secret", SECRET]
        await self.start(program, *options, "--compat", "v0_6")
        await self.line("Waiting for session...", PATIENCE)

    async def read(self):
        while line := await self.child.stdout.readline():
            text = line.decode(errors="replace").rstrip("\n")
            _, found, said = text.partition(" > ")
            async with self.came:
                if found and not self.take(said.split(" ")):
                    self.foreign.append(text[:300])
                elif not found:
                    self.lines.append(text)
                self.came.notify_all()
        await self.child.wait()
        async with self.came:
            self.came.notify_all()

    def take(self, fields):
        """Whether it is a message of this channel."""
        if len(fields) != 5 or fields[2] != self.channel or not fields[3].isdigit():
            return False
        kind, sender, _, number, _ = fields
        if kind == "greet":
            self.lines.append(f"heard {sender} {self.channel}")
        else:
            self.arrivals.setdefault(sender, []).append((int(number), time.time()))
        return True

    def order(self, order, channel, rate=2, count=None):
        self.channel = channel
        if self.publishing:
            self.publishing.cancel()
        kind = "greet" if order == "greet" else "count"
        if order != "stop":
            work = self.publish(kind, float(rate), count and int(count))
            self.publishing = asyncio.create_task(work)

    async def publish(self, kind, rate, count):
        start, turn = time.monotonic(), 0
        while count is None or len(self.sent) < count:
            turn, now = turn + 1, time.time()
            number = len(self.sent) if kind == "count" else 0
            text = f"{kind} {self.name} {self.channel} {number} {now}\n"
            self.child.stdin.write(text.encode())
            if kind == "count":
                self.sent.append(now)
            await asyncio.sleep(max(0, start + turn / rate - time.monotonic()))
        self.lines.append(f"done {self.channel}")
        async with self.came:
            self.came.notify_all()

    async def heard(self, sender, channel):
        line = f"heard {sender.name} {channel}"
        await self.until(repr(line), lambda: line in self.lines, PATIENCE)

    async def report(self):
        # Its own lines are printed too, once each; a second time it has heard itself.
        heard = dict(self.arrivals)
        own = heard.pop(self.name, [])
        echoes = [f"itself: {len(own)} for {len(self.sent)}"] * (len(own) > len(self.sent))
        foreign, errors = self.foreign + echoes, [each for each in self.lines if "-> Err" in each]
        return {
            "name": self.name, "sent": {self.channel: self.sent}, "heard": {self.channel: heard},
            "foreign": {"count": len(foreign), "first": foreign[:10]},
            "errors": {"count": len(errors), "first": errors[:10]},
        }
