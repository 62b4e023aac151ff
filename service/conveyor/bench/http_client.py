"""HTTP/1.1 over aiohttp, which costs an eighth of the client time httpx does (docs/bench.md)."""

from __future__ import annotations

import json

import aiohttp

from conveyor.bench.client import Answer
from conveyor.bench.load import Load
from conveyor.errors import Code
from conveyor.spec import Task

__all__ = ["HttpClient"]

_OK = Answer(Code.OK)
# Below the 5 s after which uvicorn closes an idle connection: a request that leaves just then is lost.
_KEEP_ALIVE_S = 4.0


class HttpClient:
    """Asks `POST /v1/<task>` on at most `load.connections` connections."""

    def __init__(self, load: Load, task: Task, deadline_s: float | None) -> None:
        self._url = f"{load.address}/v1/{task}"
        headers = {"Content-Type": "application/json"}
        if deadline_s is not None:
            headers["X-Request-Timeout"] = f"{deadline_s:.6f}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=load.connections, keepalive_timeout=_KEEP_ALIVE_S),
            headers=headers,
            # A late answer is an answer; what never comes is given up at the end of the measurement.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def ask(self, payload: bytes, lane: int) -> Answer:  # noqa: ARG002 - a connection has one request at a time
        """See the port."""
        try:
            async with self._session.post(self._url, data=payload, allow_redirects=False) as response:
                body = await response.read()
        except aiohttp.ClientConnectorError as error:
            return Answer("CLIENT_CONNECT", f"{error.host}:{error.port}: {error.strerror}")
        except aiohttp.ClientPayloadError as error:
            return Answer("CLIENT_BAD_ANSWER", str(error))
        except (aiohttp.ClientError, OSError) as error:
            return Answer("CLIENT_DISCONNECTED", str(error) or type(error).__name__)
        return _OK if response.status == 200 else _refusal(response.status, body)

    async def close(self) -> None:
        """See the port."""
        await self._session.close()


def _refusal(status: int, body: bytes) -> Answer:
    try:
        content = json.loads(body)
        return Answer(str(Code(content["code"])), str(content["error"]))
    except (ValueError, TypeError, KeyError):
        return Answer(f"HTTP_{status}", "the answer is not one of this server")
