"""One member of groups, of release 0.6, started and asked by network.py.

    network_member.py ENDPOINT NAME                       waits for groups, and takes part in all
    network_member.py ENDPOINT NAME CHANNEL MEMBER...     opens a group first, and invites members

Prints "name" and its name with its id, "ready" once it is connected, and "in CHANNEL" for each group.
Orders on its input:

    greet CHANNEL          greets until told otherwise; others print "heard SENDER CHANNEL", once
    begin CHANNEL RATE     publishes numbered messages from now on, so many a second
    count CHANNEL RATE N   publishes so many, and prints "done CHANNEL"
    stop CHANNEL           publishes nothing more, and prints "done CHANNEL"
    since TIME             prints "reached TIME SENDER" with the first message of each sender that was
                           published at TIME, of the system's clock, or later
    report FILE            writes what was sent and heard to a file, and prints "reported"

The report is an object with "name"; "sent": of each channel the times at which its messages were
published, by their numbers; "heard": of each channel and sender the numbers and times of what
arrived; and "foreign" and "errors", of each the first few and how many.
"""

import asyncio
import datetime
import json
import os
import sys
import time

import slim_bindings

SECRET = "a secret that all of the network share"
RELIABLE = {"max_retries": 10, "timeout": datetime.timedelta(seconds=1)}
OUTPUT = os.fdopen(os.dup(1), "w", buffering=1)
GREETING = 0.5
# As many texts as a report keeps of what is not right.
KEPT = 10


def tell(line):
    OUTPUT.write(f"{line}\n")


def parse(name):
    return slim_bindings.PyName(*name.split("/"))


class Faults:
    """The first few, and how many there were."""

    def __init__(self):
        self.count, self.first = 0, []

    def add(self, text):
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append(text[:300])

    def report(self):
        return {"count": self.count, "first": self.first}


class Member:
    def __init__(self, endpoint, name):
        self.endpoint, self.name = endpoint, name
        self.sessions, self.sent, self.heard = {}, {}, {}
        self.publishing = {}
        self.greeted, self.reached = set(), set()
        self.since = None
        self.foreign, self.errors = Faults(), Faults()
        self.tasks = set()

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def connect(self):
        slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
        identity = {"identity": self.name, "shared_secret": SECRET}
        self.app = await slim_bindings.Slim.new(
            parse(self.name),
            slim_bindings.PyIdentityProvider.SharedSecret(**identity),
            slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
        )
        await self.app.connect({"endpoint": self.endpoint, "tls": {"insecure": True}})
        tell(f"name {self.app.id_str}")
        tell("ready")

    async def moderate(self, channel, members):
        config = slim_bindings.PySessionConfiguration.Group(
            channel_name=parse(channel), mls_enabled=True, **RELIABLE
        )
        session = await self.app.create_session(config)
        for member in members:
            await self.app.set_route(parse(member))
            await session.invite(parse(member))
        self.take_part(session)

    async def wait_for_groups(self):
        while True:
            try:
                self.take_part(await self.app.listen_for_session())
            except Exception as error:
                self.errors.add(f"listening: {error}")
                await asyncio.sleep(0.1)

    def take_part(self, session):
        channel = "/".join(session.dst.components_strings()[:3])
        self.sessions[channel] = session
        tell(f"in {channel}")
        self.spawn(self.receive(channel, session))

    async def receive(self, channel, session):
        while True:
            try:
                _, payload = await session.get_message()
            except Exception as error:
                if "closed" in str(error):
                    return
                self.errors.add(f"receiving: {error}")
                await asyncio.sleep(0.01)
                continue
            self.take(channel, payload.decode(errors="replace"))

    def take(self, channel, text):
        fields = text.split(" ")
        if len(fields) != 5 or fields[2] != channel or fields[1] == self.name:
            self.foreign.add(f"in {channel}: {text}")
            return
        kind, sender, _, number, sent = fields
        if kind == "greet":
            if (sender, channel) not in self.greeted:
                self.greeted.add((sender, channel))
                tell(f"heard {sender} {channel}")
            return
        arrivals = self.heard.setdefault(channel, {}).setdefault(sender, [])
        arrivals.append((int(number), time.time()))
        if self.since and float(sent) >= self.since and sender not in self.reached:
            self.reached.add(sender)
            tell(f"reached {self.since} {sender}")

    async def publish(self, channel, kind, number):
        text = f"{kind} {self.name} {channel} {number} {time.time()}"
        try:
            await self.sessions[channel].publish(text.encode())
        except Exception as error:
            self.errors.add(f"publishing: {error}")
            return False
        return True

    async def greet(self, channel):
        while True:
            await self.publish(channel, "greet", 0)
            await asyncio.sleep(GREETING)

    async def publish_at(self, channel, rate, count=None):
        clock = asyncio.get_running_loop().time
        start, sent = clock(), self.sent.setdefault(channel, [])
        turn = 0
        while count is None or len(sent) < count:
            turn += 1
            now = time.time()
            if await self.publish(channel, "count", len(sent)):
                sent.append(now)
            await asyncio.sleep(max(0, start + turn / rate - clock()))
        tell(f"done {channel}")

    def instead(self, channel, work):
        before = self.publishing.pop(channel, None)
        if before:
            before.cancel()
        if work:
            self.publishing[channel] = self.spawn(work)

    def report(self, file):
        report = {"name": self.name, "sent": self.sent, "heard": self.heard}
        report |= {"foreign": self.foreign.report(), "errors": self.errors.report()}
        with open(file, "w") as out:
            json.dump(report, out)
        tell("reported")

    def order(self, order, *arguments):
        if order == "greet":
            self.instead(arguments[0], self.greet(arguments[0]))
        elif order == "begin":
            self.instead(arguments[0], self.publish_at(arguments[0], float(arguments[1])))
        elif order == "count":
            channel, rate, count = arguments
            self.instead(channel, self.publish_at(channel, float(rate), int(count)))
        elif order == "stop":
            self.instead(arguments[0], None)
            tell(f"done {arguments[0]}")
        elif order == "since":
            self.since = float(arguments[0])
            self.reached = set()
        elif order == "report":
            self.report(arguments[0])
        else:
            raise SystemExit(f"unknown order {order}")

    async def obey(self):
        while line := await asyncio.to_thread(sys.stdin.readline):
            self.order(*line.split())


async def main(endpoint, name, channel=None, *members):
    # What the package prints is not for network.py.
    os.dup2(2, 1)
    member = Member(endpoint, name)
    await member.connect()
    if channel:
        await member.moderate(channel, members)
    member.spawn(member.wait_for_groups())
    await member.obey()
    os._exit(0)


asyncio.run(main(*sys.argv[1:]))
