"""One client of a soak, started and asked by soak.py.

    soak_worker.py '{"release": ..., "endpoint": ..., "name": ..., "role": ..., ...}'

Orders on its input: "go RATE" begins what counts, "stop" ends it, "report" prints the counts, in a
line of JSON. Before, it prints "ready" when it is connected, and "heard NAME" with the first
greeting of each other.
"""

import asyncio
import json
import os
import random
import sys
import traceback

import releases
from marked import padded
from soak_clients import CLIENTS

GREETING = 0.5
OUTPUT = os.fdopen(os.dup(1), "w", buffering=1)
# As many reasons as a report keeps.
REASONS = 5


class Heard:
    """Numbers that came of one sender: all below `next`, and some beyond it."""

    def __init__(self):
        self.next = 0
        self.beyond = set()
        self.again = 0

    def add(self, number):
        if number < self.next or number in self.beyond:
            self.again += 1
            return
        self.beyond.add(number)
        while self.next in self.beyond:
            self.beyond.remove(self.next)
            self.next += 1

    def counts(self):
        return {"count": self.next + len(self.beyond), "again": self.again}


class Worker:
    def __init__(self, part):
        self.release, self.endpoint = part["release"], part["endpoint"]
        self.name, self.role = part["name"], part["role"]
        # Who our messages are for: a client, or the channel.
        self.target, self.members = part["target"], part.get("members", [])
        self.others, self.encrypted = part["others"], part["encrypted"]
        self.sizes = random.Random(f"{self.release} {self.name}")
        self.largest = part["largest"]
        self.client = CLIENTS[releases.family(self.release)]()
        self.rate = None
        self.sent = self.foreign = self.damaged = self.sessions = self.errors = 0
        self.heard = {other: Heard() for other in self.others}
        self.greeted = set()
        self.reasons = []
        self.tasks = set()

    def fault(self, error):
        self.errors += 1
        traceback.print_exception(error, file=sys.stderr)
        if len(self.reasons) < REASONS:
            self.reasons.append(f"{self.name}: {error}"[:300])

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def counted(self):
        """The next payload, of a size between 32 bytes and the largest, small ones more often."""
        size = int(32 * (self.largest / 32) ** self.sizes.random())
        return self.marked("count", self.sent, size)

    def marked(self, kind, number, size=32):
        text = f"{kind} {self.release} {self.name} {self.target} {number}"
        return padded(text, size)

    def take(self, payload):
        """Whether it is a message that counts."""
        head = payload.partition(b"\n")[0].decode(errors="replace")
        fields = head.split(" ")
        if len(fields) != 5 or not fields[4].isdigit() or payload != padded(head, len(payload)):
            self.damaged += 1
            return False
        kind, release, sender, target, number = fields
        mine = (self.name, self.target) if self.role in ("moderate", "member") else (self.name,)
        if release != self.release or sender not in self.heard or target not in mine:
            self.foreign += 1
            return False
        if kind == "greet":
            if sender not in self.greeted:
                self.greeted.add(sender)
                OUTPUT.write(f"heard {sender}\n")
            return False
        self.heard[sender].add(int(number))
        return True

    async def open_session(self):
        if self.role == "call":
            return await self.client.call(self.target, self.encrypted)
        if self.role == "moderate":
            return await self.client.moderate(self.target, self.members)
        return await self.client.accept()

    async def receive(self, session):
        while True:
            payload, context = await self.client.receive(session)
            counts = self.take(payload)
            if self.role == "answer":
                answer = self.counted() if counts else self.marked("greet", 0)
                self.sent += counts
                self.spawn(self.deliver(self.client.answer(session, context, answer)))

    async def publish(self, session):
        number = 0
        start = asyncio.get_running_loop().time()
        while True:
            if self.rate is None:
                await self.client.publish(session, self.marked("greet", 0))
                await asyncio.sleep(GREETING)
                start = asyncio.get_running_loop().time()
            elif self.rate == 0:
                await asyncio.sleep(GREETING)
            else:
                number += 1
                payload = self.counted()
                self.sent += 1
                self.spawn(self.deliver(self.client.publish(session, payload)))
                due = start + number / self.rate
                await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))

    async def deliver(self, publishing):
        """Publishes without holding up the next; a failure counts, and so may the message."""
        try:
            await publishing
        except Exception as error:
            self.fault(error)

    async def take_part(self):
        """Opens a session, and another one when it ends."""
        while True:
            try:
                session = await self.open_session()
                self.sessions += 1
                parts = [self.receive(session)]
                if self.role != "answer":
                    parts.append(self.publish(session))
                    await either(*parts)
                else:
                    # Each caller has a session of its own, and a new one when it calls again.
                    self.spawn(self.deliver(parts[0]))
            except Exception as error:
                self.fault(error)
                await asyncio.sleep(1)

    def report(self):
        return {
            "name": self.name, "sent": self.sent, "foreign": self.foreign,
            "damaged": self.damaged, "sessions": self.sessions, "errors": self.errors,
            "reasons": self.reasons,
            "heard": {sender: heard.counts() for sender, heard in self.heard.items()},
        }

    async def obey(self):
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, *arguments = line.split()
            if order == "go":
                self.rate = float(arguments[0])
            elif order == "stop":
                self.rate = 0
            else:
                OUTPUT.write(json.dumps(self.report()) + "\n")


async def either(*parts):
    """Runs them until one fails."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def main():
    # What the package prints is not for soak.py.
    os.dup2(2, 1)
    worker = Worker(json.loads(sys.argv[1]))
    await worker.client.open(worker.endpoint, worker.name)
    OUTPUT.write("ready\n")
    worker.spawn(worker.take_part())
    await worker.obey()
    os._exit(0)


asyncio.run(main())
