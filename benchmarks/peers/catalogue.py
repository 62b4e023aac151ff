"""The servers beside ours: how each is started with which settings, and how it is asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from peers import oip
from peers.servers import BATCH_ROWS, HERE, ROOT, Peer, Setting, as_json, python_of, shared_memory
from peers.work import http_request

__all__ = ["PEERS"]


def _read_plain(body: bytes) -> tuple[str, float]:
    """`{"label": …, "score": …}`, or a list of one."""
    content = json.loads(body)
    found = content[0] if isinstance(content, list) else content
    return found["label"], found["score"]


def _text_request(path: str) -> Callable[[int, str, str], bytes]:
    return lambda port, _, text: http_request(port, path, as_json({"text": text}))


def _oip_request(port: int, form: str, text: str) -> bytes:
    path = "/v2/models/sentiment/infer"
    if form == "binary":
        body, headers = oip.binary_request(text)
        return http_request(port, path, body, headers)
    return http_request(port, path, oip.json_request(text))


_TRITON_CONFIG = """name: "sentiment"
backend: "python"
max_batch_size: {rows}
input [ {{ name: "text" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "label" data_type: TYPE_STRING dims: [ 1 ] }}, {{ name: "score" data_type: TYPE_FP32 dims: [ 1 ] }} ]
instance_group [ {{ count: {workers} kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
"""


def _triton(directory: Path, ports: Sequence[int], setting: Setting, run: Path) -> Sequence[str]:
    """The server binary that the wheel `nvidia-pytriton` carries, on a model repository, without pytriton."""
    python = python_of(directory)
    home = Path(python["site"]) / "pytriton" / "tritonserver"
    backends = run / "backends"
    shutil.copytree(home / "backends", backends)
    shutil.copy2(home / "python_backend_stubs" / python["version"] / "triton_python_backend_stub", backends / "python")
    model = run / "models" / "sentiment"
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / "apps" / "triton_model.py", model / "1" / "model.py")
    delay_us = round(1000 * setting.delay_ms)
    config = _TRITON_CONFIG.format(rows=BATCH_ROWS, workers=setting.workers, delay_us=delay_us)
    (model / "config.pbtxt").write_text(config)
    http, rpc, metrics = ports
    return [
        *(str(home / "bin" / "tritonserver"), "--model-repository", str(run / "models")),
        *("--backend-directory", str(backends), "--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"),
        *("--http-port", str(http), "--grpc-port", str(rpc), "--metrics-port", str(metrics)),
        # At once, because nothing is under way; it then leaves the shared memory of its backend behind.
        *("--allow-cpu-metrics=false", "--exit-timeout-secs=0"),
        f"--backend-config=python,shm-region-prefix-name={shared_memory(http)}",
    ]


def _mlserver(directory: Path, ports: Sequence[int], setting: Setting, run: Path) -> Sequence[str]:
    # One worker is the process of the server itself, as its documents advise for a single model.
    http, rpc, metrics = ports
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": rpc, "metrics_port": metrics, "debug": False}
    settings["parallel_workers"] = 0 if setting.workers == 1 else setting.workers
    (run / "settings.json").write_text(json.dumps(settings))
    model = {"name": "sentiment", "implementation": "mls.Sentiment", "max_batch_size": BATCH_ROWS}
    model["max_batch_time"] = setting.delay_ms / 1000
    (run / "model").mkdir()
    (run / "model" / "model-settings.json").write_text(json.dumps(model))
    return [str(directory / "bin" / "mlserver"), "start", str(run)]


def _python_app(name: str) -> Callable[[Path, Sequence[int], Setting, Path], Sequence[str]]:
    return lambda directory, *_: [str(directory / "bin" / "python"), str(HERE / "apps" / name)]


def _naive(directory: Path, ports: Sequence[int], setting: Setting, _: Path) -> Sequence[str]:
    return [
        *(str(directory / "bin" / "python"), "-m", "uvicorn", "naive:app", "--host", "127.0.0.1"),
        *("--port", str(ports[0]), "--workers", str(setting.workers), "--log-level", "error"),
    ]


def _bentoml(directory: Path, ports: Sequence[int], _: Setting, __: Path) -> Sequence[str]:
    return [
        *(str(directory / "bin" / "bentoml"), "serve", "bento:Sentiment", "--working-dir", str(HERE / "apps")),
        *("--host", "127.0.0.1", "--port", str(ports[0])),
    ]


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "triton",
            "nvidia-pytriton",
            _triton,
            _oip_request,
            oip.read_json,
            forms=("json", "binary"),
            raw_grpc=True,
            about="/v2",
            environment={
                "PEER_PATH": f"{HERE / 'apps'}:{ROOT / 'service'}:{{site}}",
                "PYTHONHOME": "{base}",
                "LD_LIBRARY_PATH": "{base}/lib:{site}/nvidia_pytriton.libs",
            },
        ),
        Peer("litserve", "litserve", _python_app("lit.py"), _text_request("/predict"), _read_plain),
        Peer(
            "mlserver",
            "mlserver",
            _mlserver,
            _oip_request,
            oip.read_json,
            delays_ms=(0.5, 2, 5, 20),  # without a time it does not batch
            raw_grpc=False,
        ),
        Peer(
            "bentoml",
            "bentoml",
            _bentoml,
            lambda port, _, text: http_request(port, "/predict", as_json({"text": [text]})),
            _read_plain,
            delays_ms=(1000, 100, 10_000),
            environment={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Peer(
            "ray",
            "ray",
            _python_app("rays.py"),
            _text_request("/"),
            _read_plain,
            environment={"RAY_USAGE_STATS_ENABLED": "0"},
        ),
        Peer("naive", "fastapi", _naive, _text_request("/predict"), _read_plain, delays_ms=(0,)),
    )
}
