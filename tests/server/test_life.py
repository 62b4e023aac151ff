"""From start to stop: what a server process promises its operator."""

from __future__ import annotations

import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.packages import FORECAST, SENTIMENT, write_tiny_package
from support.rpc import Client, pb
from support.server import ServerProcess, ask_health, open_connections, start_server


def test_the_start_says_where_it_listens_and_what_it_loaded(tiny_server: ServerProcess) -> None:
    """Addresses, device and models are printed before `ready`."""
    lines = tiny_server.output.split("\n")

    assert any(line.split() == ["device", "cpu"] for line in lines)
    for name in ("sentiment-en", "pos-en", "segment-zh", "forecast-electricity"):
        assert any(line.split() == ["model", name, "1"] for line in lines)


def test_health_and_reflection_answer(tiny_server: ServerProcess, http: httpx.Client) -> None:
    """Live, ready, gRPC health and server reflection say so."""
    assert 200 == http.get("/health/live").status_code
    assert 200 == http.get("/health/ready").status_code
    with grpc.insecure_channel(tiny_server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "conveyor.v1.Conveyor"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert health_pb2.HealthCheckResponse.SERVING == answer.status


def test_metrics_stand_on_both_ports(tiny_server: ServerProcess, http: httpx.Client) -> None:
    """Requests are counted by outcome, and both ports show the same families."""
    before = _samples(http.get("/metrics").text)
    http.post("/v1/sentiment", json={"inputs": "fine"})
    http.post("/v1/sentiment", json={"inputs": []})
    after = _samples(http.get("/metrics").text)

    ok = _requests("OK", "sentiment-en", "1")
    bad = _requests("INVALID_ARGUMENT", "sentiment-en", "1")
    assert 1 == after[ok] - before.get(ok, 0)
    assert 1 == after[bad] - before.get(bad, 0)
    second = httpx.get(tiny_server.metrics, trust_env=False, timeout=60).text
    assert {name.partition("{")[0] for name in after} == {name.partition("{")[0] for name in _samples(second)}


def test_a_refused_package_says_why_and_the_others_serve(tmp_path: Path) -> None:
    """A package that can't reproduce its samples, and one that can't be read, do not stop the rest."""
    write_tiny_package(tmp_path, SENTIMENT)
    broken = write_tiny_package(tmp_path, FORECAST, seed=1)
    other = write_tiny_package(tmp_path / "elsewhere", FORECAST, seed=2)
    shutil.copy(other / "weights.safetensors", broken / "weights.safetensors")
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / "sentiment-en" / "2").mkdir()

    with start_server(tmp_path) as server, httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
        assert 200 == http.post("/v1/sentiment", json={"inputs": "a"}).status_code
        refused = http.post("/v1/forecast", json={"series": [{"values": [1.0]}]})
        assert 404 == refused.status_code
        model = http.get("/v1/models/forecast-electricity").json()
        assert "failed" == model["state"]
        assert "samples.jsonl: line 1: mean[0][0]: expected" in model["reason"]
        assert ["1"] == http.get("/v1/models/sentiment-en").json()["versions"]
        assert any(line.split()[:3] == ["refused", "sentiment-en", "2:"] for line in server.lines)


def test_the_highest_version_serves_unless_one_is_named(tmp_path: Path) -> None:
    """Versions are ordered as numbers."""
    for seed, version in enumerate(["1", "2", "10"]):
        write_tiny_package(tmp_path, SENTIMENT, seed=seed, version=version)
    with start_server(tmp_path) as server, httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
        newest = http.post("/v1/sentiment", json={"inputs": "good"}).json()
        named = http.post("/v1/sentiment", json={"inputs": "good", "version": "2"}).json()

        assert ("10", "2") == (newest["version"], named["version"])
        assert newest["results"] != named["results"]


def test_without_any_model_the_server_does_not_stay(tmp_path: Path) -> None:
    """Nothing to serve is an error at the start, not a server that refuses everybody."""
    command = [sys.executable, "-m", "conveyor", "serve", "--models", str(tmp_path), "--device", "cpu"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert 1 == ended.returncode
    assert "no model here could be loaded" in ended.stderr


def test_a_port_that_is_taken_is_named(tiny_models: Path) -> None:
    """The server says which address it can't have and ends with 1."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option in ("--http-port", "--grpc-port", "--metrics-port"):
            ports = {"--http-port": "0", "--grpc-port": "0", "--metrics-port": "0"} | {option: port}
            command = [sys.executable, "-m", "conveyor", "serve", "--models", str(tiny_models), "--device", "cpu"]
            command += [part for pair in ports.items() for part in pair]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

            assert 1 == ended.returncode
            assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_is_in_flight_and_refuses_what_is_new(slow_models: Path, number: signal.Signals) -> None:
    """Requests accepted before the signal are answered, later ones and health get 503, and the process ends with 0."""
    with (
        start_server(slow_models, "--drain-timeout", "100") as server,
        _long_request(server, words=30_000) as outcome,
    ):
        server.process.send_signal(number)
        with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
            health = _health_once_it_drains(http)
            late = http.post("/v1/sentiment", json={"inputs": "a"})
        for response in (health, late):
            assert 503 == response.status_code
            assert "close" == response.headers["connection"]
            assert int(response.headers["retry-after"]) >= 1
        assert "UNAVAILABLE" == late.json()["code"]
        client = Client(server.grpc)
        with pytest.raises(grpc.RpcError) as raised:
            client.call("Sentiment", pb.SentimentRequest(inputs=["a"]))
        assert grpc.StatusCode.UNAVAILABLE == raised.value.code()
        client.close()

        assert 0 == server.process.wait(100)
        assert 200 == outcome().status_code
        assert "stopped" in server.output


def test_a_stop_is_told_on_every_open_connection(slow_models: Path) -> None:
    """Also by a front end that has nothing left to answer while another has: no client finds its connection closed."""
    with (
        start_server(slow_models, "--drain-timeout", "100", "--frontends", "2", "--http-frontends", "2") as server,
        _long_request(server, words=30_000) as outcome,
    ):
        connections = open_connections(server, 16)
        assert [200] * 16 == [ask_health(connection) for connection in connections]
        server.process.send_signal(signal.SIGTERM)
        # Enough to meet either front end.
        for _ in range(8):
            with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
                _health_once_it_drains(http)
        # A front end with nothing to answer would be gone by then.
        time.sleep(0.5)
        assert [503] * 16 == [ask_health(connection) for connection in connections]
        for connection in connections:
            connection.close()

        assert 0 == server.process.wait(100)
        answer = outcome()
        assert isinstance(answer, httpx.Response), repr(answer)
        assert 200 == answer.status_code


def test_a_stop_ends_when_the_grace_is_over(slow_models: Path) -> None:
    """A request that does not end in time is told so, and does not keep the process."""
    with (
        start_server(slow_models, "--drain-timeout", "0") as server,
        _long_request(server, words=190_000) as outcome,
    ):
        assert 0 == server.stop()
        answer = outcome()
        assert (503, "UNAVAILABLE") == (answer.status_code, answer.json()["code"])


def test_a_second_signal_of_either_kind_ends_the_process(slow_models: Path) -> None:
    """An operator who does not want to wait need not."""
    with start_server(slow_models) as server, _long_request(server, words=190_000) as outcome:
        server.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=server.http, trust_env=False, timeout=60) as http:
            _health_once_it_drains(http)
        assert -signal.SIGINT == server.stop(signal.SIGINT)
        assert isinstance(outcome(), httpx.TransportError)


def test_a_device_that_is_not_there_is_named(tiny_models: Path) -> None:
    """The server ends with the reason."""
    command = [sys.executable, "-m", "conveyor", "serve", "--models", str(tiny_models), "--device", "cuda:99"]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert 1 == ended.returncode
    assert "device 'cuda:99' does not exist" in ended.stderr


def test_flag_beats_environment_beats_file(tmp_path: Path, tiny_models: Path) -> None:
    """The three sources of a setting, in their order; an unknown key of the file stops the start."""
    config = tmp_path / "conveyor.toml"
    config.write_text('host = "127.0.0.2"\ndefault_sentiment = "of the file"\ndefault_tag = "segment-zh"\n')
    environment = {"CONVEYOR_HOST": "127.0.0.3", "CONVEYOR_CONFIG": str(config)}
    environment["CONVEYOR_DEFAULT_SENTIMENT"] = "of the environment"
    with start_server(tiny_models, "--host", "127.0.0.1", environment=environment) as server:
        assert server.http.startswith("http://127.0.0.1:")
        answer = httpx.post(f"{server.http}/v1/tag", json={"inputs": "好"}, trust_env=False, timeout=60).json()
        assert "segment-zh" == answer["model"]
        refused = httpx.post(f"{server.http}/v1/sentiment", json={"inputs": "a"}, trust_env=False, timeout=60).json()
        assert "'of the environment'" in refused["error"]

    config.write_text('hots = "127.0.0.2"\n')
    command = [sys.executable, "-m", "conveyor", "serve", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert 2 == ended.returncode
    assert "hots" in ended.stderr


def test_more_front_ends_for_http_than_there_are_end_the_start() -> None:
    """The error names the setting and what is accepted."""
    command = [sys.executable, "-m", "conveyor", "serve", "--frontends", "2", "--http-frontends", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert 2 == ended.returncode
    assert "Error: Value error, http_frontends must be at most frontends (2); got 3\n" in ended.stderr


def test_the_server_takes_all_descriptors_that_it_may_have(tiny_models: Path) -> None:
    """And so holds more connections than the limit that it was started with."""
    asked, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
    try:
        with start_server(tiny_models, "--frontends", "1", "--engines", "1") as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (asked, most))
            connections = open_connections(server, 350)
            assert [200] * 350 == [ask_health(connection) for connection in connections]
            for connection in connections:
                connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked, most))


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose many layers take a while, so that a long text is surely in flight."""
    models = tmp_path_factory.mktemp("slow")
    recurrent = SENTIMENT.recurrent.model_copy(update={"hidden": 64, "layers": 8})
    write_tiny_package(models, SENTIMENT.model_copy(update={"recurrent": recurrent}))
    return models


def _requests(code: str, model: str, version: str) -> str:
    labels = f'code="{code}",model="{model}",protocol="http",task="sentiment",version="{version}"'
    return f"conveyor_requests_total{{{labels}}}"


def _health_once_it_drains(http: httpx.Client) -> httpx.Response:
    while (health := http.get("/health/ready")).status_code == 200:
        time.sleep(0.01)
    return health


def _samples(text: str) -> dict[str, float]:
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@contextmanager
def _long_request(server: ServerProcess, words: int) -> Iterator[Callable[[], Any]]:
    """A request that is being computed while the block runs; its answer, or why none came."""
    answers: list[httpx.Response | httpx.TransportError] = []
    body = {"inputs": "good film " * (words // 2)}

    def ask() -> None:
        try:
            answers.append(httpx.post(f"{server.http}/v1/sentiment", json=body, timeout=None, trust_env=False))
        except httpx.TransportError as error:
            answers.append(error)

    def outcome() -> httpx.Response | httpx.TransportError:
        asking.join()
        return answers[0]

    asking = threading.Thread(target=ask)
    asking.start()
    waits = 'conveyor_queue_depth{model="sentiment-en"}'
    while not _samples(httpx.get(server.metrics, trust_env=False, timeout=60).text).get(waits):
        assert asking.is_alive(), "the request ended before it was seen to wait"
        time.sleep(0.01)
    yield outcome
    asking.join()
