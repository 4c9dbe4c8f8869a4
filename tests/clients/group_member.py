"""One member of a group of release 0.6, for `benches/group`.

    group_member.py ENDPOINT NAME                           waits for a group, and takes part in it
    group_member.py ENDPOINT NAME mls|plain MEMBER...       opens a group, and invites the members

Prints "ready" once it is connected, "in session" once it has a group, "warm" with the first
greeting. Orders on its input: "warm" publishes a greeting; "go COUNT RATE SIZE EXPECTED" publishes
COUNT messages, RATE a second, and prints "done" when EXPECTED of the others have come as well.
"""

import asyncio
import datetime
import sys

import slim_bindings

SECRET = "a secret that all of the bench share"
RELIABLE = {"max_retries": 10, "timeout": datetime.timedelta(seconds=1)}
GREETING = b"w"


def tell(line):
    print(line, flush=True)


def parse(name):
    return slim_bindings.PyName(*name.split("/"))


async def connect(endpoint, name):
    slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
    identity = {"identity": name, "shared_secret": SECRET}
    app = await slim_bindings.Slim.new(
        parse(name),
        slim_bindings.PyIdentityProvider.SharedSecret(**identity),
        slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
    )
    await app.connect({"endpoint": endpoint, "tls": {"insecure": True}})
    tell("ready")
    return app


async def gather(app, encrypted, members):
    config = slim_bindings.PySessionConfiguration.Group(
        channel_name=parse("org/bench/channel"), mls_enabled=encrypted, **RELIABLE
    )
    session = await app.create_session(config)
    for member in members:
        await app.set_route(parse(member))
        await session.invite(parse(member))
    return session


class Part:
    def __init__(self, session):
        self.session = session
        self.heard = 0
        self.expected = None
        self.published = False

    def check(self):
        if self.published and self.heard >= self.expected:
            self.published = False
            tell("done")

    async def hear(self):
        warm = False
        while True:
            _, payload = await self.session.get_message()
            if payload != GREETING:
                self.heard += 1
                self.check()
            elif not warm:
                warm = True
                tell("warm")

    async def publish(self, count, rate, size):
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0, start + number / rate - loop.time()))
            await self.session.publish(b"x" * size)
        self.published = True
        self.check()

    async def obey(self):
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, *numbers = line.split()
            if order == "warm":
                await self.session.publish(GREETING)
            else:
                count, rate, size, self.expected = numbers[0], numbers[1], numbers[2], int(numbers[3])
                await self.publish(int(count), float(rate), int(size))


async def main(endpoint, name, *moderate):
    app = await connect(endpoint, name)
    if moderate:
        session = await gather(app, moderate[0] == "mls", moderate[1:])
    else:
        session = await app.listen_for_session()
    tell("in session")
    part = Part(session)
    await asyncio.gather(part.hear(), part.obey())


asyncio.run(main(*sys.argv[1:]))
