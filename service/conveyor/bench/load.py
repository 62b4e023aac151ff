"""The load that follows from the options: who is asked, in which loop, and how much at once."""

from __future__ import annotations

import ipaddress
import resource
import socket
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from conveyor.bench.options import BenchOptions, Protocol
from conveyor.errors import InvalidArgument

__all__ = ["Load", "plan_load"]

# Files this process needs beside its connections.
_OTHER_FILES = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What is done to whom.

    address: URL without a path for HTTP, HOST:PORT for gRPC.
    streams: requests at once on one connection; 1 for HTTP.
    metrics_url: None if the server's metrics are not read.
    """

    loop: Literal["open", "closed"]
    protocol: Protocol
    address: str
    connections: int
    streams: int
    metrics_url: str | None

    @property
    def in_flight(self) -> int:
        """The most requests that wait for an answer at once."""
        return self.connections * self.streams


def plan_load(options: BenchOptions) -> Load:
    """Decides what the options leave open. Resolves the names of the hosts; connects to none.

    Raises:
        InvalidArgument: The options contradict each other, an address is malformed or does not resolve, or it is
            not of this machine and `allow_remote` is not set.
    """
    url = _split(options.url, ("http", "https", "grpc"), "url")
    protocol = _protocol(options, url)
    metrics_url = options.metrics_url
    if metrics_url is None and url.scheme != "grpc":
        metrics_url = f"{url.scheme}://{url.netloc}/metrics"
    address = f"{url.scheme}://{url.netloc}"
    if protocol == "grpc":
        grpc_url = url if options.grpc is None else _split(f"grpc://{options.grpc}", ("grpc",), "grpc")
        address = grpc_url.netloc
        _check_loopback(grpc_url, options.allow_remote, "url" if options.grpc is None else "grpc")
    else:
        _check_loopback(url, options.allow_remote, "url")
    if metrics_url is not None:
        _check_loopback(_split(metrics_url, ("http", "https"), "metrics_url"), options.allow_remote, "metrics_url")
    loop: Literal["open", "closed"] = "closed" if options.rate is None else "open"
    connections = options.connections or (512 if (loop, protocol) == ("open", "http") else 8)
    streams = options.streams or (64 if (loop, protocol) == ("open", "grpc") else 1)
    _check_files(connections)
    return Load(loop, protocol, address, connections, streams, metrics_url)


def _protocol(options: BenchOptions, url: SplitResult) -> Protocol:
    protocol = options.protocol or ("grpc" if url.scheme == "grpc" or options.grpc else "http")
    if protocol == "http" and (url.scheme == "grpc" or options.grpc):
        raise InvalidArgument("an address of gRPC cannot be asked over http", field="protocol")
    if protocol == "grpc" and url.scheme != "grpc" and options.grpc is None:
        raise InvalidArgument("HOST:PORT of gRPC is needed where the URL is that of HTTP", field="grpc")
    if protocol == "http" and options.streams not in (None, 1):
        raise InvalidArgument("HTTP/1.1 has one request at a time on a connection", field="streams")
    return protocol


def _split(url: str, schemes: tuple[str, ...], field: str) -> SplitResult:
    accepted = f"accepted is {' or '.join(f'{scheme}://HOST:PORT' for scheme in schemes)}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(accepted, field=field) from error
    needs_port = parts.scheme == "grpc" and port is None
    if parts.scheme not in schemes or not parts.hostname or parts.username is not None or needs_port:
        raise InvalidArgument(accepted, field=field)
    return parts


def _check_loopback(url: SplitResult, allow_remote: bool, field: str) -> None:
    try:
        found = socket.getaddrinfo(url.hostname, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidArgument(f"{url.hostname} does not resolve: {error.strerror}", field=field) from error
    addresses = [str(address[0]) for *_, address in found]
    if not allow_remote and not all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses):
        raise InvalidArgument(
            f"{url.hostname} is not this machine; --allow-remote loads it nevertheless, if it is yours to load",
            field=field,
        )


def _check_files(connections: int) -> None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and connections + _OTHER_FILES > allowed:
        raise InvalidArgument(
            f"this process may open {allowed} files, too few for {connections} connections; see ulimit -n",
            field="connections",
        )
