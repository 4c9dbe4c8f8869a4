"""The node of a release 1 to 3, which its Python package carries.

    node_modern.py RELEASE --listen HOST:PORT [--peer URL --route NAME ... --subscribe NAME ...]

Prints "listening" once it does, and ends on SIGTERM. Installs the release if need be, and goes on
as its interpreter, in the same process. `SLIM_NODE_LOG=debug` makes it talk.
"""

import argparse
import asyncio
import datetime
import os
import signal
import sys

import releases

SECRET = "nobody shares it with the node, and it is long enough for all releases"
HOUR = datetime.timedelta(hours=1)


def server_config(sb, options):
    config = sb.new_insecure_server_config(options.listen)
    if options.cert:
        authority = sb.CaSource.FILE(path=options.ca) if options.ca else sb.CaSource.NONE()
        config.tls = sb.TlsServerConfig(
            insecure=False, source=sb.TlsSource.FILE(cert=options.cert, key=options.key),
            client_ca=authority, include_system_ca_certs_pool=False, tls_version="tls1.3",
            reload_client_ca_file=False,
        )
    if options.basic:
        user, _, password = options.basic.partition(":")
        config.auth = sb.ServerAuthenticationConfig.BASIC(
            config=sb.BasicAuth(username=user, password=password)
        )
    elif options.jwt_key:
        key = sb.JwtKeyConfig(
            algorithm=sb.JwtAlgorithm[options.jwt_algorithm], format=sb.JwtKeyFormat.PEM,
            key=sb.JwtKeyData.FILE(path=options.jwt_key),
        )
        config.auth = sb.ServerAuthenticationConfig.JWT(
            config=sb.JwtAuth(
                key=sb.JwtKeyType.DECODING(key=key), audience=[options.jwt_audience],
                issuer=options.jwt_issuer, subject=None, duration=HOUR,
            )
        )
    return config


def parse(sb, name):
    *texts, number = name.split("/") if name.count("/") == 3 else (*name.split("/"), None)
    return sb.Name.new_with_id(*texts, number) if number else sb.Name(*texts)


async def link(sb, service, options):
    """A connection to the peer, and routes to what it has."""
    connection = await service.connect_async(sb.new_insecure_client_config(options.peer))
    app = service.create_app_with_secret(sb.Name("reference", "node", "slim"), SECRET)
    for route in options.route:
        await app.set_route_async(parse(sb, route), connection)
    for name in options.subscribe:
        await app.subscribe_async(parse(sb, name), connection)
    return app


async def serve(options):
    import slim_bindings as sb

    tracing = sb.new_tracing_config()
    tracing.log_level = os.environ.get("SLIM_NODE_LOG", "error")
    sb.initialize_with_configs(
        tracing_config=tracing, runtime_config=sb.new_runtime_config(),
        service_config=[sb.new_service_config()],
    )
    service = sb.get_global_service()
    await service.run_server_async(server_config(sb, options))
    linked = options.peer and await link(sb, service, options)
    print("listening", flush=True)

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    del linked
    try:
        await asyncio.wait_for(service.shutdown_async(), 5)
    except (sb.SlimError, TimeoutError) as error:
        print(f"told {error!r}", flush=True)
    # Threads of the package would keep the process.
    os._exit(0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release")
    parser.add_argument("--listen", default="127.0.0.1:46357")
    parser.add_argument("--peer", help="another node to link with")
    parser.add_argument("--route", action="append", default=[], help="a name that the peer has")
    parser.add_argument("--subscribe", action="append", default=[], help="a name to have of the peer")
    parser.add_argument("--cert", help="serve TLS with this certificate")
    parser.add_argument("--key", help="its key")
    parser.add_argument("--ca", help="who signed the certificates of clients")
    parser.add_argument("--basic", metavar="USER:PASSWORD")
    parser.add_argument("--jwt-key", help="a PEM file to check tokens with")
    parser.add_argument("--jwt-algorithm", default="ES256")
    parser.add_argument("--jwt-audience", default="slim")
    parser.add_argument("--jwt-issuer", default="tests")
    parser.add_argument("--installed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.installed:
        interpreter = releases.python(options.release)
        os.execv(interpreter, [interpreter, *sys.argv, "--installed"])
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
