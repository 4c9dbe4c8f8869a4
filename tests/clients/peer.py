"""One application of release 0.6, driven over its standard input and output.

    peer.py ENDPOINT NAME listen            waits for a session, and takes part in it
    peer.py ENDPOINT NAME echo              waits for sessions, and answers what comes
    peer.py ENDPOINT NAME call PEER         opens an encrypted session with PEER
    peer.py ENDPOINT NAME call-plain PEER   opens a session with PEER in the clear
    peer.py ENDPOINT NAME moderate CHANNEL MEMBER...
                                            opens an encrypted group, and invites the members

Prints "name" and its name with its id, then "ready" once it is connected, "in session" once it has one, "got TEXT" for each message, and
"ended REASON" when the session ends, "told TEXT" for each other error. Each line of its input is published in the session, but

    /invite NAME    invites another member
    /remove NAME    removes a member
    /delete         deletes the session, locally

PEER_CLIENT in its environment holds the keys of its client block, as JSON; without it there is no
TLS.
"""

import asyncio
import datetime
import json
import os
import sys

import slim_bindings

SECRET = "a secret that all of the test share"
RELIABLE = {"max_retries": 10, "timeout": datetime.timedelta(seconds=1)}


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
    client = json.loads(os.environ.get("PEER_CLIENT", '{"tls": {"insecure": true}}'))
    await app.connect({"endpoint": endpoint, **client})
    tell(f"name {app.id_str}")
    tell("ready")
    return app


async def print_messages(session):
    while True:
        try:
            _, payload = await session.get_message()
        except Exception as error:
            tell(f"ended {error}" if "closed" in str(error) else f"told {error}")
            if "closed" in str(error):
                return
            continue
        tell(f"got {payload.decode()}")


async def answer_messages(session):
    while True:
        context, payload = await session.get_message()
        tell(f"got {payload.decode()}")
        await session.publish_to(context, b"echo of " + payload)


async def publish_lines(app, session):
    while line := await asyncio.to_thread(sys.stdin.readline):
        command, _, name = line.rstrip("\n").partition(" ")
        try:
            if command == "/invite":
                await app.set_route(parse(name))
                await session.invite(parse(name))
            elif command == "/remove":
                await session.remove(parse(name))
            elif command == "/delete":
                await app.delete_session(session)
            else:
                await session.publish(line.rstrip("\n").encode())
        except Exception as error:
            tell(f"refused {error}")


async def take_part(app, session):
    tell("in session")
    await asyncio.gather(print_messages(session), publish_lines(app, session))


async def echo(app):
    answering = []
    while True:
        session = await app.listen_for_session()
        tell("in session")
        answering.append(asyncio.create_task(answer_messages(session)))


async def call(app, peer, encrypted):
    await app.set_route(parse(peer))
    config = slim_bindings.PySessionConfiguration.PointToPoint(
        peer_name=parse(peer), mls_enabled=encrypted, **RELIABLE
    )
    await take_part(app, await app.create_session(config))


async def moderate(app, channel, members):
    config = slim_bindings.PySessionConfiguration.Group(
        channel_name=parse(channel), mls_enabled=True, **RELIABLE
    )
    session = await app.create_session(config)
    for member in members:
        await app.set_route(parse(member))
        await session.invite(parse(member))
    await take_part(app, session)


async def main(endpoint, name, role, *others):
    app = await connect(endpoint, name)
    if role == "listen":
        await take_part(app, await app.listen_for_session())
    elif role == "echo":
        await echo(app)
    elif role == "call":
        await call(app, *others, encrypted=True)
    elif role == "call-plain":
        await call(app, *others, encrypted=False)
    elif role == "moderate":
        channel, *members = others
        await moderate(app, channel, members)
    else:
        raise SystemExit(f"unknown role {role}")


asyncio.run(main(*sys.argv[1:]))
