"""Programs in a folder of their own, what terminals show of them, and documents made of that."""

import asyncio
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import releases
from processes import Process

REPOSITORY = releases.HERE.parent.parent
APP = '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}'


class Place:
    """A folder in which programs run, and where they are."""

    def __init__(self, programs, folder):
        self.programs = Path(programs).resolve()
        self.folder = Path(folder)
        self.running = []

    def write(self, name, text):
        (self.folder / name).write_text(text)

    async def start(self, program, *arguments):
        """A program that goes on."""
        process = Process(program)
        command = ["env", f"--chdir={self.folder}", "-u", "CONFIG", self.programs / program]
        await process.start(*command, *arguments)
        self.running.append(process)
        return process

    async def app(self, name):
        """The tutorial's `group` program."""
        process = Process(name)
        options = ["--local", name, "--slim", APP, "--shared-secret", "secret"]
        await process.start(releases.python("0.6.3"), str(releases.HERE / "group.py"), *options)
        await process.line("Waiting for session...")
        self.running.append(process)
        return process

    async def run(self, line):
        """What a terminal shows of a command line, which begins with slimctl."""
        environment = {"HOME": str(self.folder), "PATH": f"{self.programs}:/usr/bin:/bin", "COLUMNS": "100"}
        child = await asyncio.create_subprocess_shell(
            line, cwd=self.folder, env=environment, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await asyncio.wait_for(child.communicate(), 60)
        text = told.decode().replace(str(self.folder), "/home/you")
        if text and not text.endswith("\n"):
            text += "\n"
        end = f"(exit code {child.returncode})\n" if child.returncode else ""
        return f"$ {line}\n{text}{end}"

    async def end(self):
        for process in reversed(self.running):
            await process.finish()


@asynccontextmanager
async def place(programs):
    with tempfile.TemporaryDirectory() as folder:
        here = Place(programs, folder)
        try:
            yield here
        finally:
            await here.end()


class Document:
    def __init__(self, text):
        self.text = text.lstrip("\n")

    def say(self, text):
        self.text += "\n" + text.strip("\n") + "\n"

    def block(self, text, kind="text"):
        self.say(f"```{kind}\n{text.rstrip()}\n```")

    def compare(self, theirs, ours):
        self.say("The document:")
        self.block(theirs)
        self.say("Here:")
        self.block(ours)

    def save(self, name):
        (REPOSITORY / "docs" / name).write_text(self.text)


def lines(process, start=0):
    return "\n".join(process.lines[start:])


async def says(process, part):
    await process.until(repr(part), lambda: any(part in line for line in process.lines), 30)


def after(output):
    """The last word of what a command printed."""
    return output.split()[-1]
