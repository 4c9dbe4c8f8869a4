"""The three published interfaces, as far as a soak needs them.

Each client has `open(endpoint, name)`, `call(peer, encrypted)`, `moderate(channel, members)` and
`accept()`, which give a session, and `receive(session)`, `publish(session, payload)` and
`answer(session, context, payload)`.
"""

import argparse
import asyncio
import datetime
import os

import slim_bindings

SECRET = "a secret that all of the soak share, and long enough for all releases"
RELIABLE = {"max_retries": 10, "timeout": datetime.timedelta(seconds=1)}


def authority():
    """Who signed the node's certificate, for https."""
    return os.environ.get("SOAK_CA")


def tls(endpoint):
    if not endpoint.startswith("https://"):
        return {"insecure": True}
    return {"ca_file": authority(), "include_system_ca_certs_pool": False}


class Old:
    """What the releases 0.4 to 0.6 have in common."""

    async def open(self, endpoint, name):
        tracing = slim_bindings.init_tracing(
            {"log_level": "error", "opentelemetry": {"enabled": False}}
        )
        if asyncio.isfuture(tracing) or asyncio.iscoroutine(tracing):
            await tracing
        identity = {"identity": name, "shared_secret": SECRET}
        self.app = await slim_bindings.Slim.new(
            self.parse(name),
            slim_bindings.PyIdentityProvider.SharedSecret(**identity),
            slim_bindings.PyIdentityVerifier.SharedSecret(**identity),
        )
        await self.app.connect({"endpoint": endpoint, "tls": tls(endpoint)})

    def parse(self, name):
        return slim_bindings.PyName(*name.split("/"))


class First(Old):
    """Releases 0.4 and 0.5: a session is an entry of the app."""

    async def open(self, endpoint, name):
        await super().open(endpoint, name)
        self.receiving = asyncio.create_task(self.receive_for_ever())

    async def receive_for_ever(self):
        # The package's own loop ends with the first message that it cannot read, so an application
        # has to enter it again.
        while True:
            try:
                await self.app._receive_loop()
            except Exception:
                await asyncio.sleep(0.01)

    async def call(self, peer, encrypted):
        self.peer = self.parse(peer)
        await self.app.set_route(self.peer)
        config = slim_bindings.PySessionConfiguration.FireAndForget(
            sticky=True, mls_enabled=encrypted, **RELIABLE
        )
        return await self.app.create_session(config)

    async def accept(self):
        session, _ = await self.app.receive()
        return session

    async def receive(self, session):
        context, payload = await self.app.receive(session=session.id)
        return bytes(payload), context

    async def publish(self, session, payload):
        await self.app.publish(session, payload, self.peer)

    async def answer(self, session, context, payload):
        await self.app.publish_to(context, payload)


class Second(Old):
    """Releases 0.6: a session is an object."""

    async def call(self, peer, encrypted):
        await self.app.set_route(self.parse(peer))
        config = slim_bindings.PySessionConfiguration.PointToPoint(
            peer_name=self.parse(peer), mls_enabled=encrypted, **RELIABLE
        )
        return await self.app.create_session(config)

    async def moderate(self, channel, members):
        config = slim_bindings.PySessionConfiguration.Group(
            channel_name=self.parse(channel), mls_enabled=True, **RELIABLE
        )
        session = await self.app.create_session(config)
        for member in members:
            await self.app.set_route(self.parse(member))
            await session.invite(self.parse(member))
        return session

    async def accept(self):
        return await self.app.listen_for_session()

    async def receive(self, session):
        while True:
            try:
                context, payload = await session.get_message()
                return bytes(payload), context
            except TimeoutError:
                continue

    async def publish(self, session, payload):
        await session.publish(payload)

    async def answer(self, session, context, payload):
        await session.publish_to(context, payload)


class Modern:
    """Releases 1 to 3."""

    async def open(self, endpoint, name):
        import modern

        self.modern = modern
        service = modern.service()
        options = argparse.Namespace(
            endpoint=endpoint, ca=authority(), cert=None, basic=None, token=None, jwt_key=None
        )
        self.connection = await service.connect_async(modern.client_config(options))
        self.app = service.create_app_with_secret(modern.parse(name), SECRET)
        await self.app.subscribe_async(modern.parse(name), self.connection)

    async def session(self, kind, encrypted, destination):
        config = self.modern.session_config(kind, encrypted)
        opened = await self.app.create_session_async(config, destination)
        await opened.completion.wait_async()
        return opened.session

    async def call(self, peer, encrypted):
        peer = self.modern.parse(peer)
        await self.app.set_route_async(peer, self.connection)
        return await self.session(slim_bindings.SessionType.POINT_TO_POINT, encrypted, peer)

    async def moderate(self, channel, members):
        kind = slim_bindings.SessionType.GROUP
        session = await self.session(kind, True, self.modern.parse(channel))
        for member in map(self.modern.parse, members):
            await self.app.set_route_async(member, self.connection)
            await session.invite_and_wait_async(member)
        return session

    async def accept(self):
        return await self.app.listen_for_session_async(None)

    async def receive(self, session):
        message = await session.get_message_async(None)
        return message.payload, message.context

    async def publish(self, session, payload):
        published = await session.publish_async(payload, None, None)
        await published.wait_async()

    async def answer(self, session, context, payload):
        published = await session.publish_to_async(context, payload, None, None)
        await published.wait_async()


CLIENTS = {"first": First, "second": Second, "modern": Modern}
