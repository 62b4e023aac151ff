"""A virtual environment for each peer, made once from its pinned requirements."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["NotInstallable", "environments", "install", "versions"]

_REQUIREMENTS = Path(__file__).parent / "requirements"
_INSTALL_TIMEOUT_S = 1800
_MARKER = "installed"
_SHOWN = ("torch", "numpy", "fastapi", "uvicorn", "starlette", "pydantic", "grpcio")


class NotInstallable(Exception):
    """The package index does not give what a peer needs."""


def environments() -> Path:
    """Where they lie: `PEER_ENVS`, or the user's cache."""
    return Path(os.environ.get("PEER_ENVS") or Path.home() / ".cache" / "conveyor-peers").absolute()


def install(peer: str) -> Path:
    """The environment of a peer, of this interpreter, made or brought up to its requirements if need be.

    Raises:
        NotInstallable: pip failed.
    """
    requirements = _REQUIREMENTS / f"{peer}.txt"
    directory = environments() / peer
    marker = directory / _MARKER
    # How an interpreter was built may make a server faster by a quarter: theirs is ours.
    wanted = hashlib.sha256(requirements.read_bytes() + f"{sys.base_prefix} {sys.version}".encode()).hexdigest()
    if marker.is_file() and marker.read_text() == wanted:
        return directory
    print(f"setting up {peer} under {directory}", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise NotInstallable(f"{' '.join(command)} took longer than {_INSTALL_TIMEOUT_S} s") from error
        if done.returncode:
            raise NotInstallable(f"{' '.join(command)} failed: {done.stderr[-2000:]}")
    marker.write_text(wanted)
    return directory


def versions(directory: Path, *packages: str) -> dict[str, str]:
    """What is installed of the named packages and of those that matter for speed."""
    code = (
        "import json, sys, platform\n"
        "from importlib import metadata\n"
        "names = {d.metadata['Name'].lower(): d.version for d in metadata.distributions()}\n"
        "print(json.dumps({'python': platform.python_version(), **{n: names[n] for n in sys.argv[1:] if n in names}}))"
    )
    command = [str(directory / "bin" / "python"), "-c", code, *packages, *_SHOWN]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found
