"""Every command of `slimctl`, with programs that are running: what it prints when it works, and when it does not."""

from terminal import Document, after, place, says

CONTROLLER = """
northbound: { httpHost: 127.0.0.1, httpPort: 50051 }
southbound: { httpHost: 127.0.0.1, httpPort: 50052 }
"""

NODE = """
admin: "127.0.0.1:46359"
services:
  slim/0:
    dataplane:
      servers: [{ endpoint: "127.0.0.1:46357", tls: { insecure: true } }]
    controller:
      servers: [{ endpoint: "127.0.0.1:46358", tls: { insecure: true } }]
      clients: [{ endpoint: "http://127.0.0.1:50052", tls: { insecure: true } }]
      token_provider: { shared_secret: "secret" }
"""

INTRODUCTION = """
# slimctl, command by command

What `slimctl` prints, standard output and standard error as they come, against a controller on
`localhost:50051` with two nodes: `slim/0` on port 46357, which can be managed directly on port 46358,
and `slim/1` on port 46367. The apps are those of release 0.6.3 that the
[tutorial](control-plane-transcript.md) uses. `to-slim-1.json` holds
`{"endpoint": "http://127.0.0.1:46367"}`.

This file is the work of `python3 tests/clients/transcript.py target/debug`, which runs all of it. Its
home folder is written as `/home/you`. The exit code stands behind what failed.
"""


class Terminal:
    def __init__(self, here, document):
        self.here, self.document = here, document

    async def __call__(self, title, *commands):
        """The commands of one section; returns what the last printed."""
        self.document.say(f"## {title}")
        told = [await self.here.run(command) for command in commands]
        self.document.block("".join(told))
        return told[-1]


async def network(here):
    here.write("config-controller.yaml", CONTROLLER.lstrip())
    here.write("config-slim.yaml", NODE.lstrip())
    other = NODE.replace("slim/0", "slim/1").replace("46357", "46367")
    other = other.replace("127.0.0.1:46359", "127.0.0.1:0").replace("46358", "0")
    here.write("config-other.yaml", other.lstrip())
    here.write("to-slim-1.json", '{"endpoint": "http://127.0.0.1:46367"}\n')
    here.write("to-nowhere.json", '{"endpoint": "http://127.0.0.1:9"}\n')
    controller = await here.start("slim-controller", "--config", "config-controller.yaml")
    await says(controller, "Northbound API Service is listening")
    nodes = [await here.start("slim", "--config", name) for name in ("config-slim.yaml", "config-other.yaml")]
    for node in nodes:
        await says(node, " connected to control plane")
    return nodes


async def follow(programs):
    document = Document(INTRODUCTION)
    async with place(programs) as here:
        _, other = await network(here)
        apps = [await here.app(f"agntcy/ns/client-{number}") for number in (1, 2, 3)]
        terminal = Terminal(here, document)
        await nodes(terminal)
        await groups(terminal, apps)
        await routes(terminal)
        await looks(terminal)
        await other.end(15)
        await terminal(
            "A node that is gone",
            "slimctl node list",
            "slimctl connection list -n slim/1",
            "slimctl node deregister slim/1",
            "slimctl node deregister slim/1",
        )
        await settings(terminal)
        await tools(terminal)
    document.save("slimctl-transcript.md")


async def nodes(terminal):
    await terminal(
        "Nodes and connections",
        "slimctl node list",
        "slimctl node list -o table",
        "slimctl controller node list -o json",
        "slimctl connection list -n slim/0",
        "slimctl connection list -n slim/9",
        "slimctl connection list",
    )
    await terminal(
        "No controller",
        "slimctl --server localhost:9 node list",
        "slimctl --server localhost:50051 --tls.insecure=false node list",
        "slimctl --server localhost --timeout never node list",
    )


async def groups(terminal, apps):
    name = "a" + apps[0].lines[1].split()[0][1:]
    channel = after(await terminal("A channel", f"slimctl channel create moderators={name}"))
    await terminal(
        "What no channel is made of",
        "slimctl channel create moderators=agntcy/ns/client-1",
        "slimctl channel create agntcy/ns/client-1/7",
        "slimctl channel create moderators=agntcy/ns/client-1/7",
        "slimctl channel create",
    )
    await terminal(
        "Participants",
        f"slimctl participant add -c {channel} agntcy/ns/client-2",
        f"slimctl participant add -c {channel} agntcy/ns/client-3",
        f"slimctl participant add -c {channel} agntcy/ns/client-2",
        f"slimctl participant add -c {channel} agntcy/ns/nobody",
        f"slimctl participant add -c {channel} nobody",
        "slimctl participant add -c agntcy/ns/missing agntcy/ns/client-2",
        "slimctl participant add agntcy/ns/client-2",
        f"slimctl participant list -c {channel}",
        f"slimctl participant list -c {channel} -o yaml",
        "slimctl participant list -c agntcy/ns/missing",
        f"slimctl participant delete -c {channel} agntcy/ns/client-3",
        f"slimctl participant delete -c {channel} agntcy/ns/client-3",
        f"slimctl participant delete -c {channel} agntcy/ns/client-1",
    )
    await terminal(
        "The channels",
        "slimctl channel list",
        f"slimctl channel delete {channel}",
        f"slimctl channel delete {channel}",
        "slimctl channel delete missing",
        "slimctl channel list",
    )


async def routes(terminal):
    await terminal(
        "Routes, by the controller",
        "slimctl route add org/ns/app/7 via slim/1 -n slim/0",
        "slimctl route add org/ns/other/8 via to-slim-1.json -n slim/0",
        "slimctl route add org/ns/third/9 via to-nowhere.json -n slim/0",
        "slimctl route add org/ns/app/7 via slim/0 -n slim/0",
        "slimctl route add org/ns/app/7 via slim/9 -n slim/0",
        "slimctl route add org/ns/app via slim/1 -n slim/0",
        "slimctl route add org/ns/app/7 to slim/1 -n slim/0",
        "slimctl route add org/ns/app/7 via missing.json -n slim/0",
        "slimctl route list -n slim/0",
        "slimctl route list -n slim/9",
        "slimctl route outline",
        "slimctl route del org/ns/app/7 via slim/1 -n slim/0",
        "slimctl route del org/ns/other/8 via http://127.0.0.1:46367 -n slim/0",
        "slimctl route del org/ns/third/9 via http://127.0.0.1:9 -n slim/0",
        "slimctl route del org/ns/never/1 via slim/1 -n slim/0",
    )
    await terminal(
        "Routes and connections, straight from a node",
        "slimctl node-connect route add org/ns/direct/7 via to-slim-1.json",
        "slimctl node-connect route list",
        "slimctl node connection list",
        "slimctl node route del org/ns/direct/7 via http://127.0.0.1:46367",
        "slimctl node-connect --server localhost:9 route list",
        "slimctl node-connect route add org/ns/direct/7 via slim/1",
    )


async def looks(terminal):
    await terminal.here.app("agntcy/ns/client-4")
    await terminal(
        "Into a node",
        "slimctl top --once",
        "slimctl explain agntcy/ns/client-4",
        "slimctl explain agntcy/ns/nobody",
        "slimctl explain nobody",
        "slimctl top --once --admin http://127.0.0.1:9",
    )


async def settings(terminal):
    await terminal(
        "Settings",
        "slimctl config set server localhost:50051",
        "slimctl config set timeout 5s",
        "slimctl config set timeout never",
        "slimctl config set colour red",
        "slimctl config set --context far server https://controller.example.org:50051",
        "slimctl config get-contexts",
        "slimctl config use-context far",
        "slimctl config use-context near",
        "slimctl config list",
        "slimctl config delete-context far",
        "slimctl config delete-context far",
    )


async def tools(terminal):
    await terminal(
        "The program itself",
        "slimctl version",
        "slimctl completion bash | head -n 3",
        "slimctl completion tcl",
        "slimctl man | head -n 3",
        "slimctl participate",
    )
    await terminal(
        "A node, and how fast it is",
        "timeout -s TERM 1 slimctl slim start --endpoint 127.0.0.1:46367",
        "slimctl slim start --config missing.yaml",
        "slimctl bench pub --count 1000 --subscribers 1",
        "slimctl bench pub --count 1000 --subscribers 1 --server grpc://127.0.0.1:9",
    )
