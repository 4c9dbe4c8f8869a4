"""The node of release 0.6, which its Python package carries.

    node.py HOST:PORT [--peer URL --route NAME ... --subscribe NAME ...]

Prints "listening" once it does, and runs until it is ended. Linked with a peer it sends there what is
for the routes, and asks it for what is for the names it subscribes to.
"""

import argparse
import asyncio

import slim_bindings


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--peer")
    parser.add_argument("--route", action="append", default=[])
    parser.add_argument("--subscribe", action="append", default=[])
    return parser.parse_args()


def parse(name):
    *texts, number = name.split("/") if name.count("/") == 3 else (*name.split("/"), None)
    return slim_bindings.PyName(*texts, int(number) if number else None)


async def main(options):
    slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
    identity = {"identity": "node", "shared_secret": "nobody shares it with the node"}
    node = await slim_bindings.Slim.new(
        parse("org/ns/node"),
        slim_bindings.PyIdentityProvider.SharedSecret(**identity),
        slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
        local_service=True,
    )
    await node.run_server({"endpoint": options.address, "tls": {"insecure": True}})
    if options.peer:
        await node.connect({"endpoint": options.peer, "tls": {"insecure": True}})
        for name in options.route:
            await node.set_route(parse(name))
        for name in options.subscribe:
            await node.subscribe(parse(name))
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(arguments()))
