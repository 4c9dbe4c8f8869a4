"""One application of the releases 1 to 3, driven over its standard input and output.

    modern.py [OPTIONS] ENDPOINT NAME listen            waits for sessions, and takes part in the last
    modern.py [OPTIONS] ENDPOINT NAME echo              waits for sessions, and answers what comes
    modern.py [OPTIONS] ENDPOINT NAME call PEER         opens an encrypted session with PEER
    modern.py [OPTIONS] ENDPOINT NAME call-plain PEER   opens a session with PEER in the clear
    modern.py [OPTIONS] ENDPOINT NAME moderate CHANNEL MEMBER...
                                        opens an encrypted group, and invites the members
    modern.py [OPTIONS] ENDPOINT NAME moderate-plain CHANNEL MEMBER...
                                        the same in the clear

Prints "name" and its name with its id, then "ready" once it is connected and subscribed, "in session" with each session, "got TEXT" for
each message (see `marked.shown` for long ones), "ended REASON" when a session ends, "told TEXT" for
each other error. Each line of its input is published in the session, but

    /send TAG COUNT SIZE   publishes COUNT payloads of SIZE bytes, "TAG 0" first
    /call PEER             opens one more session with PEER, which is then the session
    /call-plain PEER       the same in the clear
    /invite NAME           invites another member
    /remove NAME           removes a member
    /participants          prints "participants NAME..."
    /route NAME            sends what is for NAME to the node
    /subscribe NAME        asks the node for what is for NAME, too
    /unsubscribe NAME      asks it no more
    /delete                deletes the session
    /disconnect            ends the connection

Each of these prints "done" and the line once it is done, or "refused REASON". A "/send" is done when
the receivers have acknowledged all of it. `SLIM_CLIENT_LOG=debug` makes the package talk on
standard error.
"""

import argparse
import asyncio
import datetime
import os
import sys

import slim_bindings

from marked import padded, shown

SECRET = "a secret that all of the test share, and long enough for all releases"
RETRIES = 10
OUTPUT = os.fdopen(os.dup(1), "w", buffering=1)


def tell(line):
    OUTPUT.write(line + "\n")


def parse(name):
    return slim_bindings.Name(*name.split("/"))


def show(name):
    return "/".join(name.components())


def tls(options):
    kinds = slim_bindings.CaSource, slim_bindings.TlsSource
    authority = kinds[0].FILE(path=options.ca) if options.ca else kinds[0].NONE()
    own = kinds[1].FILE(cert=options.cert, key=options.key) if options.cert else kinds[1].NONE()
    return slim_bindings.TlsClientConfig(
        insecure=False, insecure_skip_verify=False, source=own, ca_source=authority,
        include_system_ca_certs_pool=False, tls_version="tls1.3",
    )


def credentials(options):
    kind = slim_bindings.ClientAuthenticationConfig
    hour = datetime.timedelta(hours=1)
    if options.basic:
        user, _, password = options.basic.partition(":")
        return kind.BASIC(config=slim_bindings.BasicAuth(username=user, password=password))
    if options.token:
        return kind.STATIC_JWT(
            config=slim_bindings.StaticJwtAuth(token_file=options.token, duration=hour)
        )
    key = slim_bindings.JwtKeyConfig(
        algorithm=slim_bindings.JwtAlgorithm[options.jwt_algorithm],
        format=slim_bindings.JwtKeyFormat.PEM,
        key=slim_bindings.JwtKeyData.FILE(path=options.jwt_key),
    )
    return kind.JWT(
        config=slim_bindings.ClientJwtAuth(
            key=slim_bindings.JwtKeyType.ENCODING(key=key), audience=[options.jwt_audience],
            issuer=options.jwt_issuer, subject=options.jwt_subject, duration=hour,
        )
    )


def client_config(options):
    config = slim_bindings.new_insecure_client_config(options.endpoint)
    if options.endpoint.startswith("https://"):
        config.tls = tls(options)
    if options.basic or options.token or options.jwt_key:
        config.auth = credentials(options)
    return config


def service():
    tracing = slim_bindings.new_tracing_config()
    tracing.log_level = os.environ.get("SLIM_CLIENT_LOG", "error")
    # The log goes to the standard output, which is for our own lines.
    os.dup2(2, 1)
    slim_bindings.initialize_with_configs(
        tracing_config=tracing, runtime_config=slim_bindings.new_runtime_config(),
        service_config=[slim_bindings.new_service_config()],
    )
    return slim_bindings.get_global_service()


def session_config(kind, encrypted):
    fields = {
        "session_type": kind, "max_retries": RETRIES, "metadata": {},
        "interval": datetime.timedelta(seconds=1),
    }
    if hasattr(slim_bindings, "MlsSettings"):
        settings = slim_bindings.MlsSettings(
            header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
        )
        fields["mls_settings"] = settings if encrypted else None
    else:
        fields["enable_mls"] = encrypted
    return slim_bindings.SessionConfig(**fields)


class Application:
    """An app of the package, its connection, and the session that it publishes in."""

    def __init__(self, options):
        self.options = options
        self.session = None
        self.tasks = set()

    async def connect(self):
        self.service = service()
        name = parse(self.options.name)
        self.connection = await self.service.connect_async(client_config(self.options))
        self.app = self.service.create_app_with_secret(name, SECRET)
        await self.app.subscribe_async(name, self.connection)

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.finished)

    def finished(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            tell(f"told {task.exception()}")

    def enter(self, session, answering=False):
        self.session = session
        tell("in session")
        self.spawn(self.receive(session, answering))

    async def receive(self, session, answering):
        while True:
            try:
                message = await session.get_message_async(None)
            except slim_bindings.SlimError as error:
                if "closed" in str(error):
                    tell(f"ended {error}")
                    return
                tell(f"told {error}")
                continue
            tell(f"got {shown(message.payload)}")
            if answering:
                echo = b"echo of " + message.payload
                await session.publish_to_async(message.context, echo, None, None)

    async def listen(self, answering):
        while True:
            self.enter(await self.app.listen_for_session_async(None), answering)

    async def call(self, peer, encrypted=True):
        await self.route(peer)
        config = session_config(slim_bindings.SessionType.POINT_TO_POINT, encrypted)
        opened = await self.app.create_session_async(config, parse(peer))
        await opened.completion.wait_async()
        self.enter(opened.session)

    async def call_plain(self, peer):
        await self.call(peer, encrypted=False)

    async def moderate(self, encrypted, channel, *members):
        config = session_config(slim_bindings.SessionType.GROUP, encrypted)
        opened = await self.app.create_session_async(config, parse(channel))
        await opened.completion.wait_async()
        self.enter(opened.session)
        for member in members:
            await self.invite(member)

    async def publish(self, text):
        published = await self.session.publish_async(text.encode(), None, None)
        # Who publishes does not wait, but a message nobody acknowledges is an error.
        self.spawn(published.wait_async())

    async def send(self, tag, count, size):
        published = []
        for number in range(int(count)):
            payload = padded(f"{tag} {number}", int(size))
            published.append(await self.session.publish_async(payload, None, None))
        for one in published:
            await one.wait_async()

    async def invite(self, name):
        await self.route(name)
        await self.session.invite_and_wait_async(parse(name))

    async def remove(self, name):
        await self.session.remove_and_wait_async(parse(name))

    async def participants(self):
        names = await self.session.participants_list_async()
        # Releases before 2 list names, later ones names with a status.
        names = [show(getattr(each, "name", each)) for each in names]
        tell(f"participants {' '.join(sorted(names))}")

    async def route(self, name):
        await self.app.set_route_async(parse(name), self.connection)

    async def subscribe(self, name):
        await self.app.subscribe_async(parse(name), self.connection)

    async def unsubscribe(self, name):
        await self.app.unsubscribe_async(parse(name), self.connection)

    async def delete(self):
        await self.app.delete_session_and_wait_async(self.session)

    async def disconnect(self):
        self.service.disconnect(self.connection)

    async def obey(self):
        orders = {
            "/send": self.send, "/call": self.call, "/call-plain": self.call_plain,
            "/invite": self.invite, "/remove": self.remove, "/participants": self.participants,
            "/route": self.route, "/subscribe": self.subscribe, "/unsubscribe": self.unsubscribe,
            "/delete": self.delete, "/disconnect": self.disconnect,
        }
        while line := await asyncio.to_thread(sys.stdin.readline):
            line = line.rstrip("\n")
            order, *arguments = line.split() or [""]
            try:
                if order in orders:
                    await orders[order](*arguments)
                    tell(f"done {line}")
                else:
                    await self.publish(line)
            except slim_bindings.SlimError as error:
                tell(f"refused {error}")

    async def take_role(self, role, others):
        if role in ("listen", "echo"):
            self.spawn(self.listen(answering=role == "echo"))
        elif role in ("call", "call-plain"):
            await self.call(*others, encrypted=role == "call")
        else:
            await self.moderate(role == "moderate", *others)


def arguments():
    roles = ["listen", "echo", "call", "call-plain", "moderate", "moderate-plain"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ca", help="who signed the node's certificate, for https")
    parser.add_argument("--cert", help="our own certificate")
    parser.add_argument("--key", help="its key")
    parser.add_argument("--basic", metavar="USER:PASSWORD")
    parser.add_argument("--token", help="a file with a signed token")
    parser.add_argument("--jwt-key", help="a PEM file, or a shared one, to sign tokens with")
    parser.add_argument("--jwt-algorithm", default="ES256")
    parser.add_argument("--jwt-audience", default="slim")
    parser.add_argument("--jwt-issuer", default="tests")
    parser.add_argument("--jwt-subject", default="client")
    parser.add_argument("endpoint")
    parser.add_argument("name")
    parser.add_argument("role", choices=roles)
    parser.add_argument("others", nargs="*")
    return parser.parse_args()


async def main():
    options = arguments()
    application = Application(options)
    await application.connect()
    tell(f"name {options.name}/{application.app.id()}")
    tell("ready")
    await application.take_role(options.role, options.others)
    await application.obey()


if __name__ == "__main__":
    asyncio.run(main())
