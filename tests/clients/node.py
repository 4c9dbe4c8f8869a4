"""The node of release 0.6, which its Python package carries.

    node.py HOST:PORT

Prints "listening" once it does, and runs until it is ended.
"""

import asyncio
import sys

import slim_bindings


async def main(address):
    slim_bindings.init_tracing({"log_level": "error", "opentelemetry": {"enabled": False}})
    identity = {"identity": "node", "shared_secret": "nobody shares it with the node"}
    node = await slim_bindings.Slim.new(
        slim_bindings.PyName("org", "ns", "node"),
        slim_bindings.PyIdentityProvider.SharedSecret(**identity),
        slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
        local_service=True,
    )
    await node.run_server({"endpoint": address, "tls": {"insecure": True}})
    print("listening", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(sys.argv[1]))
