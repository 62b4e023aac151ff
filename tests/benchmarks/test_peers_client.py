"""Our own load generator against a server of the standard library: what it counts, never how fast it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from peers import load
from peers.client import closed_loop, open_loop, poisson_arrivals
from peers.work import http_request, write_file


class _Handler(BaseHTTPRequestHandler):
    """Answers `/` with 200, in chunks if the body says so, and anything else with 400; drops a connection that was
    used before without an answer if the body says that."""

    protocol_version = "HTTP/1.1"
    used = False

    def do_POST(self) -> None:
        """One request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:  # type: ignore[attr-defined]
            self.server.bodies.append(body)  # type: ignore[attr-defined]
            if body == b"drop" and self.used:
                self.server.dropped += 1  # type: ignore[attr-defined]
                self.close_connection = True
                return
        self.used = True
        self.send_response(200 if self.path == "/" else 400)
        if body == b"chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"2\r\nok\r\n0\r\n\r\n")
        else:
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        self.close_connection = body == b"close"

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """On a free port of the loopback interface."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http:
        http.lock, http.bodies, http.dropped = threading.Lock(), [], 0  # type: ignore[attr-defined]
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield http
        http.shutdown()
        thread.join()


def test_arrivals_are_a_poisson_process() -> None:
    """As many as the rate says, ascending, within the time, the same for a seed."""
    arrivals = poisson_arrivals(1000.0, 10.0, seed=3)
    assert 10_000 == pytest.approx(len(arrivals), rel=0.05)
    assert sorted(arrivals) == arrivals
    assert arrivals[-1] < 10.0
    assert arrivals == poisson_arrivals(1000.0, 10.0, seed=3)


def test_every_arrival_is_answered(server: ThreadingHTTPServer) -> None:
    """Also in chunks, and by a server that closes connections now and then."""
    port = server.server_address[1]
    requests = [http_request(port, "/", body) for body in (b"plain", b"chunks", b"close")]
    found = open_loop(port, requests, rate=60.0, seconds=1.0, limit_ms=60_000)
    assert (True, 0, False) == (found.held, found.failed, found.stopped)
    assert 0 < found.arrivals < len(server.bodies)  # type: ignore[attr-defined]
    assert 0 < found.p50_ms <= found.p99_ms


def test_errors_do_not_hold_a_limit(server: ThreadingHTTPServer) -> None:
    """However fast they come."""
    port = server.server_address[1]
    found = open_loop(port, [http_request(port, "/none", b"")], rate=60.0, seconds=1.0, limit_ms=60_000)
    assert not found.held
    assert found.failed > 0


def test_a_closed_loop_counts_answers_and_errors(server: ThreadingHTTPServer) -> None:
    """As many requests as the server saw, but for those under way at the end; every second one an error."""
    port = server.server_address[1]
    requests = [http_request(port, "/", b"a"), http_request(port, "/none", b"b")]
    figures = closed_loop(port, requests, connections=4, seconds=0.5)
    assert 0 <= len(server.bodies) - figures["requests"] <= 4  # type: ignore[attr-defined]
    assert figures["requests"] / 2 == pytest.approx(figures["errors"], abs=4)


def test_a_request_that_meets_the_end_of_an_idle_connection_is_sent_again(server: ThreadingHTTPServer) -> None:
    """As every HTTP client does; it is no error of the server."""
    port = server.server_address[1]
    requests = [http_request(port, "/", b"plain"), http_request(port, "/", b"drop")]
    while not server.dropped:  # type: ignore[attr-defined]
        assert 0 == closed_loop(port, requests, connections=1, seconds=0.1)["errors"]


def test_without_wrk_our_own_client_drives_the_closed_loop(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a note says so; a server that answers with errors gives no figures."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ["wrk", "h2load"] == [note.split()[0] for note in load.missing()]
    port = server.server_address[1]
    write_file([http_request(port, "/", b"a")], tmp_path / "good")
    write_file([http_request(port, "/none", b"a")], tmp_path / "none")
    figures = load.closed_loop(port, tmp_path / "good", 2, 0.2)
    assert figures["requests_per_s"] == figures["requests"] / figures["seconds"] > 0
    with pytest.raises(load.LoadError, match="failed at 2 connections"):
        load.closed_loop(port, tmp_path / "none", 2, 0.2)
