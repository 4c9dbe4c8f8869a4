"""The `group` program of the tutorial of release 0.6, with its options and its output.

    group.py --local ORG/NS/APP --slim '{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}' --shared-secret SECRET
             [--remote CHANNEL --invites NAME... --enable-mls]

Without --remote and --invites it waits for a group. Each line of its input is published there; `exit` and `quit` leave. On a terminal it
shows the tutorial's prompt. It ends when its session does.
"""

import argparse
import asyncio
import datetime
import json
import os
import sys

import slim_bindings


def split_id(name):
    return slim_bindings.PyName(*name.split("/"))


def show(text, end="\n"):
    print(text, end=end, flush=True)


async def create_local_app(local, slim, secret):
    slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
    show("Warning: Falling back to shared-secret authentication. Don't use this in production!")
    identity = {"identity": local, "shared_secret": secret}
    app = await slim_bindings.Slim.new(
        split_id(local),
        slim_bindings.PyIdentityProvider.SharedSecret(**identity),
        slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
    )
    show(f"{app.id_str.capitalize()} Created app")
    await app.connect(slim)
    show(f"{app.id_str.capitalize()} Connected to {slim['endpoint']}")
    return app


async def receive_loop(app, session, ready):
    if session is None:
        show("Waiting for session...")
        session = await app.listen_for_session()
    ready.set_result(session)
    while True:
        try:
            context, payload = await session.get_message()
            show(f"{context.source_name} > {payload.decode()}")
        except Exception as error:
            show(f"-> Error receiving message: {error}")
            return


async def keyboard_loop(app, ready):
    session = await ready
    show(f"Welcome to the group {session.dst}!\nSend a message to the group, or type 'exit' or 'quit' to quit.")
    show(f"{session.src} > ", end="" if sys.stdin.isatty() else "\n")
    while line := await asyncio.to_thread(sys.stdin.readline):
        text = line.rstrip("\n")
        if text.lower() in ("exit", "quit"):
            await app.delete_session(session)
            return
        try:
            await session.publish(text.encode())
        except Exception as error:
            show(f"-> Error sending message: {error}")


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("--local", required=True)
    options.add_argument("--slim", required=True, type=json.loads)
    options.add_argument("--shared-secret", required=True)
    options.add_argument("--remote")
    options.add_argument("--invites", action="append", default=[])
    options.add_argument("--enable-mls", action="store_true")
    options = options.parse_args()

    app = await create_local_app(options.local, options.slim, options.shared_secret)
    session = None
    if options.remote and options.invites:
        show(f"Creating new group session (moderator)... {split_id(options.local)}")
        session = await app.create_session(
            slim_bindings.PySessionConfiguration.Group(
                channel_name=split_id(options.remote),
                max_retries=5,
                timeout=datetime.timedelta(seconds=5),
                mls_enabled=options.enable_mls,
            )
        )
        await asyncio.sleep(1)
        for invite in options.invites:
            await app.set_route(split_id(invite))
            await session.invite(split_id(invite))
            show(f"{options.local} -> add {split_id(invite)} to the group")

    ready = asyncio.get_running_loop().create_future()
    keyboard = asyncio.create_task(keyboard_loop(app, ready))
    await receive_loop(app, session, ready)
    keyboard.cancel()
    # A thread may still be waiting for input, and would be waited for.
    sys.stdout.flush()
    os._exit(0)


asyncio.run(main())
