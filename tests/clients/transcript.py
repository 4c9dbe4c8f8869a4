"""Follows the tutorial with a controller, and `slimctl`, in programs of their own, and writes down what they print.

    transcript.py FOLDER

FOLDER holds slim, slim-controller and slimctl. Writes docs/control-plane-transcript.md and docs/slimctl-transcript.md. Needs the ports
of the tutorial: 50051, 50052 and 46357 of this machine, and 46358, 46359 and 46367 beside them.
"""

import asyncio
import sys

import slimctl_commands
from terminal import Document, after, lines, place, says

CONTROLLER = """
northbound:
  httpHost: 0.0.0.0
  httpPort: 50051
  logging:
    level: DEBUG
southbound:
  httpHost: 0.0.0.0
  httpPort: 50052
# number of node reconciler threads
reconciler:
  threads: 3
logging:
  level: INFO
"""

NODE = """
tracing:
  log_level: info
  display_thread_names: true
  display_thread_ids: true
runtime:
  n_cores: 0
  thread_name: "slim-data-plane"
  drain_timeout: 10s
services:
  slim/0:
    dataplane:
      servers:
        - endpoint: "0.0.0.0:46357"
          tls:
            insecure: true
      clients: []
    controller:
      servers: []
      clients:
        - endpoint: "http://localhost:50052"
          tls:
            insecure: true
      token_provider:
        shared_secret: "secret"
"""

SHOWN = {
    "controller": """
2025-10-06T08:06:06Z INF Starting route reconcilers
2025-10-06T08:06:06Z INF Starting Route Reconciler thread_name=reconciler-1
2025-10-06T08:06:06Z INF Starting Route Reconciler thread_name=reconciler-0
2025-10-06T08:06:06Z INF Starting Route Reconciler thread_name=reconciler-2
2025-10-06T08:06:06Z INF Southbound API Service is Listening on [::]:50052
2025-10-06T08:06:06Z INF Northbound API Service is listening on [::]:50051
""",
    "node": """
2025-10-06T08:22:54.529981Z INFO main ThreadId(01) application_lifecycle: slim: Runtime started
2025-10-06T08:22:54.530116Z INFO main ThreadId(01) application_lifecycle: slim: Starting service: slim/0
2025-10-06T08:22:54.530157Z INFO main ThreadId(01) application_lifecycle: slim_service::service: starting service
2025-10-06T08:22:54.530193Z INFO main ThreadId(01) application_lifecycle: slim_service::service: starting server 0.0.0.0:46357
...
""",
    "registration": """
2025-10-06T11:47:14+02:00 INF Registering node with ID: slim/0 svc=southbound
2025-10-06T11:47:14+02:00 INF Connection details: [endpoint: 127.0.0.1:46357] svc=southbound
2025-10-06T11:47:14+02:00 INF Create generic routes for node node_id=slim/0 service=RouteService
2025-10-06T11:47:14+02:00 INF Sending routes to registered node slim/0 node_id=slim/0
2025-10-06T11:47:14+02:00 INF Sending configuration command to registered node connections_count=0 message_id=8e9d311a-0012-4fb2-93dc-cda2cb0dd2ef node_id=slim/0 subscriptions_count=0 subscriptions_to_delete_count=0
2025-10-06T11:47:14+02:00 INF Sending routes completed successfully ack_messages=[] node_id=slim/0 original_message_id=8e9d311a-0012-4fb2-93dc-cda2cb0dd2ef
""",
    "started": """
Warning: Falling back to shared-secret authentication. Don't use this in production!
Agntcy/ns/client-1/9494657801285491688 Created app
Agntcy/ns/client-1/9494657801285491688 Connected to http://localhost:46357
Waiting for session...
""",
    "created": "Received response: agntcy/ns/xyIGhc2igNGmkeBDlZ",
    "welcome": """
Welcome to the group 169ca82eb17d6bc2/eef9769a4c6990d1/e8ab33f6d6111780/ffffffffffffffff (agntcy/ns/xyIGhc2igNGmkeBDlZ/ffffffffffffffff)!
Send a message to the group, or type 'exit' or 'quit' to quit.
169ca82eb17d6bc2/eef9769a4c6990d1/58ec40d7c837e0b9/83c3ccf725835be8 (agntcy/ns/client-1/83c3ccf725835be8) >
""",
    "added": """
Adding participant to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-2
Participant added successfully to channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-2
""",
    "welcome of client-2": """
Welcome to the group 169ca82eb17d6bc2/eef9769a4c6990d1/e8ab33f6d6111780/ffffffffffffffff (agntcy/ns/xyIGhc2igNGmkeBDlZ/ffffffffffffffff)!
Send a message to the group, or type 'exit' or 'quit' to quit.
169ca82eb17d6bc2/eef9769a4c6990d1/b521a3788f1267a8/e4011f7be5222a24 (agntcy/ns/client-2/e4011f7be5222a24) >
""",
    "removed": """
Deleting participant from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-3
Participant deleted successfully from channel ID agntcy/ns/xyIGhc2igNGmkeBDlZ: agntcy/ns/client-3
""",
    "deleted": "Channel deleted successfully with ID: agntcy/ns/xyIGhc2igNGmkeBDlZ",
}


async def begin(here):
    """The controller and the node of the tutorial."""
    here.write("config-controller.yaml", CONTROLLER.lstrip())
    here.write("config-slim.yaml", NODE.lstrip())
    controller = await here.start("slim-controller", "--config", "config-controller.yaml")
    await says(controller, "Northbound API Service is listening")
    began = lines(controller)
    node = await here.start("slim", "--config", "config-slim.yaml")
    await says(node, "connected to control plane")
    await says(controller, "Sending routes completed")
    return controller, began, node


async def follow_tutorial(programs):
    document = Document(INTRODUCTION)
    async with place(programs) as here:
        controller, began, node = await begin(here)
        document.say("## Run the SLIM controller")
        document.say("`slim-controller --config config-controller.yaml`, with the tutorial's file:")
        document.block(CONTROLLER.strip(), "yaml")
        document.compare(SHOWN["controller"].strip(), began)
        document.say("## Run the SLIM node")
        document.say("`slim --config config-slim.yaml`, with the tutorial's file, in which the controller is at `localhost`:")
        document.block(NODE.strip(), "yaml")
        document.compare(SHOWN["node"].strip(), lines(node))
        document.say("On the side of the controller, the document:")
        document.block(SHOWN["registration"].strip())
        document.say("Here:")
        document.block(lines(controller, len(began.splitlines())))
        await follow_group(document, here)
    document.say(DIFFERENCES)
    document.save("control-plane-transcript.md")


async def follow_group(document, here):
    clients = [await here.app(f"agntcy/ns/client-{number}") for number in (1, 2, 3)]
    document.say("## Run the participants")
    document.compare(SHOWN["started"].strip(), lines(clients[0]))
    document.say("## Create the group")
    name = "a" + clients[0].lines[1].split()[0][1:]
    created = await here.run(f"slimctl channel create moderators={name}")
    channel = after(created)
    document.compare(SHOWN["created"], created)
    await says(clients[0], ") >")
    document.say("On `client-1`:")
    document.compare(SHOWN["welcome"].strip(), lines(clients[0], 4))
    document.say("## Add participants")
    added = [await here.run(f"slimctl participant add -c {channel} agntcy/ns/client-{number}") for number in (2, 3)]
    document.compare(SHOWN["added"].strip(), "".join(added))
    await says(clients[1], ") >")
    await says(clients[2], ") >")
    document.say("On `client-2`:")
    document.compare(SHOWN["welcome of client-2"].strip(), lines(clients[1], 4))
    document.say("Each of them then types `hello from` and its name. What the others show:")
    for speaker in clients:
        speaker.write(f"hello from {speaker.label}")
        for listener in clients:
            if listener is not speaker:
                await says(listener, f"> hello from {speaker.label}")
    shown = [f"{client.label}:\n{lines(client, 7)}" for client in clients]
    document.block("\n\n".join(shown))
    document.say("## Remove a participant")
    removed = await here.run(f"slimctl participant delete -c {channel} agntcy/ns/client-3")
    document.compare(SHOWN["removed"].strip(), removed)
    await document_end(document, [clients[2]])
    document.say("It does not work for `client-1`, as the document says:")
    document.block(await here.run(f"slimctl participant delete -c {channel} agntcy/ns/client-1"))
    document.say("## Delete the channel")
    document.compare(SHOWN["deleted"], await here.run(f"slimctl channel delete {channel}"))
    await document_end(document, clients[:2])


async def document_end(document, clients):
    for client in clients:
        await client.until("end", lambda client=client: not client.alive(), 30)
    told = [f"{client.label}:\n{client.lines[-1]}\nexit {client.child.returncode}" for client in clients]
    document.say("The programs that end:")
    document.block("\n\n".join(told))


INTRODUCTION = """
# The tutorial with a controller, followed

What the programs print when the second half of the group tutorial of SLIM 0.6 ("Group Communication
Using the SLIM Controller") is followed with them, beside what the document shows. The applications
are the tutorial's `group` program with `slim-bindings` 0.6.3 from PyPI
([tests/clients/group.py](../tests/clients/group.py)).

This file is the work of `python3 tests/clients/transcript.py target/debug`, which runs all of it.
[tests/control_plane](../tests/control_plane) follows the same steps in every run of the tests, and
compares them line by line.
"""

DIFFERENCES = """
## What differs

- Instances, the drawn name of the channel, times and the ids of messages, which differ from run to
  run. What is drawn has the document's form: 18 letters and digits behind the moderator's
  organisation and namespace.
- Both programs warn of what the document says one should not do in production: there is no TLS. The
  controller tells where it keeps what it is told, and that `northbound.logging.level` of the
  tutorial's file has no effect beside `logging.level`.
- The line of the node that names its server shows this project's settings too; further lines follow.
- A participant is added when it has joined, and removed when it has left, not when the message to the
  moderator is on its way.
"""


async def main(programs):
    await follow_tutorial(programs)
    await slimctl_commands.follow(programs)


asyncio.run(main(*sys.argv[1:]))
