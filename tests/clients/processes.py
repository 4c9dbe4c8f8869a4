"""Nodes and clients, each in a process of its own, and what they print."""

import asyncio
import contextlib
import os
import re
import signal
import tempfile

import releases


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# As much of a line as a report shows.
LINE = 200


class Failed(Exception):
    """Something else came than what should have come."""


class Process:
    """A process whose lines are kept, and whose errors go to a log."""

    def __init__(self, label):
        self.label = label
        self.lines = []
        self.came = asyncio.Condition()
        self.log = tempfile.TemporaryFile()
        self.child = None

    async def start(self, *command):
        self.child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=self.log, limit=1 << 20,
        )
        self.reading = asyncio.create_task(self.read())

    async def read(self):
        while line := await self.child.stdout.readline():
            async with self.came:
                self.lines.append(line.decode(errors="replace").rstrip("\n"))
                self.came.notify_all()
        await self.child.wait()
        async with self.came:
            self.came.notify_all()

    def write(self, line):
        self.child.stdin.write(line.encode() + b"\n")

    def alive(self):
        return self.child is not None and self.child.returncode is None

    async def until(self, what, check, seconds):
        """Waits until `check()` is true, which `what` describes, or fails."""

        def settled():
            return check() or not self.alive()

        async with self.came:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.came.wait_for(settled), seconds)
        if not check():
            end = "" if self.alive() else f", it ended with {self.child.returncode}"
            raise Failed(f"{self.label}: no {what} within {seconds} s{end}; {self.last()}")

    def last(self):
        lines = [line[:LINE] for line in self.lines[-3:]]
        return f"last lines: {lines}" if lines else "it said nothing"

    def count(self, line):
        return self.lines.count(line)

    async def line(self, line, seconds=30, times=1):
        await self.until(repr(line), lambda: self.count(line) >= times, seconds)

    def logged(self):
        """The lines of its log."""
        self.log.seek(0)
        return COLOUR.sub("", self.log.read().decode(errors="replace")).splitlines()

    def told(self):
        """The end of its log."""
        return self.logged()[-15:]

    async def end(self, number=signal.SIGKILL, seconds=15):
        if not self.alive():
            return
        self.child.send_signal(number)
        try:
            await asyncio.wait_for(self.child.wait(), seconds)
        except TimeoutError:
            self.child.kill()
            await self.child.wait()
            raise Failed(f"{self.label} ignored signal {number}") from None

    async def finish(self):
        await self.end()
        if self.child:
            await self.reading


class Client(Process):
    """A process of modern.py."""

    async def open(self, release, endpoint, name, *role):
        script = str(releases.HERE / "modern.py")
        self.name = name
        await self.start(releases.python(release), script, endpoint, name, *role)
        await self.line("ready")

    async def order(self, line, seconds=30):
        """Has an order carried out."""
        before, done = len(self.lines), f"done {line}"

        def answered():
            answers = self.lines[before:]
            return done in answers or any(text.startswith("refused ") for text in answers)

        self.write(line)
        await self.until(repr(done), answered, seconds)
        refusals = [text for text in self.lines[before:] if text.startswith("refused ")]
        if refusals:
            raise Failed(f"{self.label}: {line}: {refusals[0][: 2 * LINE]}")

    def got(self):
        return [line[4:] for line in self.lines if line.startswith("got ")]


class Node(Process):
    """The node under test, where its command is known."""

    def __init__(self, command, address):
        super().__init__("node")
        self.command = command
        self.host, _, port = address.rpartition(":")
        self.port = int(port)

    async def listen(self, seconds=30):
        await self.start(*self.command)
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline and self.alive():
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.host, self.port)
                writer.close()
                return
            await asyncio.sleep(0.05)
        raise Failed(f"the node does not listen; {self.last()} {self.told()}")


def unused_names():
    """A namespace that no other run has."""
    return f"agntcy/{os.urandom(4).hex()}"
