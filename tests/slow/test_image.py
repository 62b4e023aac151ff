"""The container image: which tool builds it, and what the built one promises.

The image is built with the environment `deploy/build-image` reads, so a machine without a registry can name its own
BASE_IMAGE and BUILD_OPTIONS.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from support.packages import write_tiny_models

# The first test that needs the image waits for the build: minutes, most of them downloads.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "deploy" / "build-image"
DOCKERFILE = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
TOOLS = ("docker", "podman", "buildah")
TAG = "localhost/conveyor:test"
READY_TIMEOUT_S = 120.0

# ---- which tool builds it ------------------------------------------------------------------------------------------


def run_script(folder: Path, works: dict[str, bool], **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script where only the named tools are installed; each prints how it was called."""
    for program in ("bash", "dirname", "git", "sed"):
        (folder / program).symlink_to(str(shutil.which(program)))
    for tool, working in works.items():
        (folder / tool).write_text(
            f"#!{shutil.which('bash')}\n[[ $1 == info ]] && exit {int(not working)}\n"
            f'printf "%s\\n" {tool} "BUILDKIT=$DOCKER_BUILDKIT" "$@"\n',
            encoding="utf-8",
        )
        (folder / tool).chmod(0o755)
    return subprocess.run(
        [folder / "bash", SCRIPT], env={"PATH": str(folder), **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("works", "expected"),
    [
        ({"docker": True, "podman": True, "buildah": True}, "docker"),
        ({"docker": False, "podman": True, "buildah": True}, "podman"),
        ({"docker": False, "podman": False, "buildah": True}, "buildah"),
        ({"buildah": True}, "buildah"),
    ],
)
def test_the_first_tool_whose_engine_answers_builds(works: dict[str, bool], expected: str, tmp_path: Path) -> None:
    """A client without an engine does not count, and the script says which tool it took."""
    ran = run_script(tmp_path, works)
    assert 0 == ran.returncode, ran.stderr
    said, called, *_ = ran.stdout.splitlines()
    assert f"build-image: building conveyor:cpu with {expected}" == said
    assert expected == called


def test_no_working_tool_is_an_error_that_names_them_all(tmp_path: Path) -> None:
    """Nothing is built, and the message says what to install or start."""
    ran = run_script(tmp_path, {"docker": False})
    assert 1 == ran.returncode
    assert "" == ran.stdout
    for tool in TOOLS:
        assert tool in ran.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_the_environment_reaches_the_build(tool: str, tmp_path: Path) -> None:
    """TORCH, BASE_IMAGE, TAG and the words of BUILD_OPTIONS become options; the folder to build comes last."""
    ran = run_script(
        tmp_path,
        {tool: True},
        TORCH="cuda",
        BASE_IMAGE="debian:other",
        TAG="registry.example/lstm:7",
        BUILD_OPTIONS="--no-cache --build-arg A=b",
    )
    assert 0 == ran.returncode, ran.stderr
    called = ran.stdout.splitlines()[3:]
    joined = shlex.join(called)
    assert "build" == called[0]
    assert "--tag registry.example/lstm:7 --build-arg TORCH=cuda --build-arg BASE_IMAGE=debian:other" in joined
    assert ["--no-cache", "--build-arg", "A=b", "."] == called[-4:]


@pytest.mark.parametrize(("tool", "expected"), [("docker", False), ("podman", True), ("buildah", True)])
def test_the_format_keeps_the_health_check(tool: str, expected: bool, tmp_path: Path) -> None:
    """Podman and Buildah write OCI images unless told otherwise, and those have no health check."""
    assert expected == ("--format\ndocker\n" in run_script(tmp_path, {tool: True}).stdout)


def test_an_older_docker_is_told_to_use_buildkit(tmp_path: Path) -> None:
    """Docker before 23 cannot read the Dockerfile's secret mounts without it."""
    assert "BUILDKIT=1" in run_script(tmp_path, {"docker": True}).stdout.splitlines()


# ---- what the built one promises -----------------------------------------------------------------------------------


class Runner(Protocol):
    """How commands run in containers of the image.

    The tests' models are its /models; its root is read-only but for /tmp.
    """

    def serve(self, port: int) -> list[str]:
        """Command that runs the image as it wants to be run; takes its signals and gives its exit code."""

    def inside(self, port: int, variables: dict[str, str], command: list[str]) -> list[str]:
        """Command that runs another one beside the server on this port."""


@dataclass(frozen=True)
class EngineRunner:
    """Docker or Podman."""

    tool: str
    models: Path

    def serve(self, port: int) -> list[str]:
        """Passes signals on, as `run` does in the foreground."""
        hardened = ["--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", f"--volume={self.models}:/models:ro"]
        reachable = [f"--name={self._name(port)}", f"--publish=127.0.0.1:{port}:{port}"]
        return [self.tool, "run", *hardened, *reachable, f"--env=CONVEYOR_HTTP_PORT={port}", TAG]

    def inside(self, port: int, variables: dict[str, str], command: list[str]) -> list[str]:
        """In the container itself."""
        environment = [f"--env={name}={value}" for name, value in variables.items()]
        return [self.tool, "exec", *environment, self._name(port), *command]

    def _name(self, port: int) -> str:
        return f"conveyor-test-{port}"


@dataclass(frozen=True)
class ChrootRunner:
    """Buildah, which has no engine: what it mounted, as the image's user and with the image's environment.

    config: the image's configuration in the words of the OCI image specification.
    """

    root: Path
    models: Path
    config: dict[str, Any]

    # Each step replaces the one before, so that signals reach the server and its exit code comes back.
    _SCRIPT = """
        mount --bind "$1" "$1"
        mount --bind "$2" "$1/models"
        mount --rbind /dev "$1/dev"
        mount --rbind /proc "$1/proc"
        mount -t tmpfs tmpfs "$1/tmp"
        mount -o remount,bind,ro "$1"
        root=$1 user=$3
        shift 3
        exec chroot --userspec="$user" "$root" env -i "$@"
    """

    def serve(self, port: int) -> list[str]:
        """On this machine's network; the two ports that nobody asks for are any free ones."""
        ports = {"CONVEYOR_HTTP_PORT": str(port), "CONVEYOR_GRPC_PORT": "0", "CONVEYOR_METRICS_PORT": "0"}
        return self.inside(port, ports, [*self.config["Entrypoint"], *self.config["Cmd"]])

    def inside(self, port: int, variables: dict[str, str], command: list[str]) -> list[str]:
        """On the same files and the same network."""
        given = {"CONVEYOR_HTTP_PORT": str(port)} | variables
        environment = [*self.config["Env"], *(f"{name}={value}" for name, value in given.items())]
        places = [str(self.root), str(self.models), self.config["User"]]
        return ["unshare", "--mount", "bash", "-ec", self._SCRIPT, "bash", *places, *environment, *command]


@dataclass(frozen=True)
class Container:
    """A running one; what it prints goes to the test's own output."""

    runner: Runner
    port: int
    process: subprocess.Popen[bytes]

    def inside(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in it."""
        full = self.runner.inside(self.port, variables, list(command))
        return subprocess.run(full, capture_output=True, text=True, check=False)

    def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """The answer to a request, which must succeed."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def is_ready(self) -> bool:
        """Whether /health/ready says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=5) as response:
                return bool(200 == response.status)
        except OSError:
            return False

    def stop(self) -> int:
        """Sends SIGTERM and waits for the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def running(runner: Runner) -> Iterator[Container]:
    """A container that is ready; stopped at the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(runner.serve(port)) as process:
        container = Container(runner, port, process)
        try:
            end = time.monotonic() + READY_TIMEOUT_S
            while not container.is_ready():
                assert process.poll() is None, "the container ended before it was ready"
                assert time.monotonic() < end, "the container is not ready in time"
                time.sleep(0.2)
            yield container
        finally:
            if process.poll() is None:
                container.stop()


def run_tool(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs an image tool."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def base_image() -> str:
    """The image the build starts from."""
    default = re.search(r"^ARG BASE_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert default
    return os.environ.get("BASE_IMAGE") or default[1]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The image, built by the script from this checkout, with tiny models in place of the shipped ones."""
    tool = next((tool for tool in TOOLS if shutil.which(tool) and 0 == run_tool(tool, "info").returncode), None)
    if tool is None:
        pytest.skip("none of docker, podman and buildah works here")
    if tool == "buildah" and os.geteuid() != 0:
        pytest.skip("only root can run what buildah built, which has no engine")
    base = base_image()
    known = run_tool(tool, "inspect", "--type", "image", base).returncode == 0
    if not known and run_tool(tool, "pull", base).returncode != 0:
        pytest.skip(f"{tool} can neither find nor pull the base image {base}; BASE_IMAGE names another")

    built = subprocess.run(
        [SCRIPT],
        env=os.environ | {"TAG": TAG},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert 0 == built.returncode, built.stdout[-10_000:]
    models = tmp_path_factory.mktemp("models")
    models.chmod(0o755)  # pytest's own folders are closed to every other user
    write_tiny_models(models)
    try:
        if tool == "buildah":
            with mounted() as root:
                config = json.loads(run_tool("buildah", "inspect", "--type", "image", TAG).stdout)["OCIv1"]["config"]
                yield ChrootRunner(root, models, config)
        else:
            yield EngineRunner(tool, models)
    finally:
        run_tool(tool, "rmi", TAG)


@contextmanager
def mounted() -> Iterator[Path]:
    """The folder where Buildah mounted the image."""
    name = run_tool("buildah", "from", TAG).stdout.strip()
    try:
        yield Path(run_tool("buildah", "mount", name).stdout.strip())
    finally:
        run_tool("buildah", "rm", name)


@pytest.fixture(scope="module")
def container(runner: Runner) -> Iterator[Container]:
    """A container for the tests that leave it running."""
    with running(runner) as container:
        yield container


def test_every_task_is_served(container: Container) -> None:
    """On a root that is read-only but for /tmp, one request a task gets one result."""
    bodies: dict[str, dict[str, object]] = {
        "/v1/sentiment": {"inputs": "a good film"},
        "/v1/tag": {"inputs": "two ships never met"},
        "/v1/forecast": {"series": [{"values": [10.0, 12.0, None, 11.5]}]},
    }
    for path, body in bodies.items():
        assert 1 == len(container.post(path, body)["results"]), path


def test_the_server_is_not_root_and_owns_nothing(container: Container) -> None:
    """The image's user is not root, and what it runs belongs to root and is closed to its writes."""
    assert "0" != container.inside("id", "-u").stdout.strip()
    found = container.inside(
        "find", "/opt/conveyor", "!", "-type", "l", "(", "!", "-user", "root", "-o", "-perm", "/022", ")"
    )
    assert (0, "") == (found.returncode, found.stdout)


def test_nothing_that_builds_is_in_the_image(container: Container) -> None:
    """No compiler, no pip, none of what pip keeps for later."""
    program = """
import importlib.util, os, shutil
print([name for name in ("cc", "gcc", "g++", "clang", "make", "pip", "pip3") if shutil.which(name)],
      importlib.util.find_spec("pip"), os.path.exists("/root/.cache"))
"""
    assert "[] None False" == container.inside("python", "-c", program).stdout.strip()


def test_the_health_check_follows_the_configured_port(container: Container) -> None:
    """The image's own check passes on the server's port and fails on one where nobody listens."""
    written = re.search(r"^HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)
    assert written
    check = json.loads(written[1])
    assert 0 == container.inside(*check).returncode
    assert 0 != container.inside(*check, CONVEYOR_HTTP_PORT="1").returncode


def test_sigterm_is_an_ordered_stop(runner: Runner) -> None:
    """The signal reaches the server itself, which exits with 0."""
    with running(runner) as container:
        assert 0 == container.stop()
