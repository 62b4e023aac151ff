"""Which files a package holds, and reading them within limits."""

from __future__ import annotations

from pathlib import Path

from conveyor.errors import PackageError, Problem
from conveyor.spec import ForecastSpec, PackageSpec

__all__ = [
    "CARD",
    "MANIFEST",
    "PLAN_LOCK",
    "SAMPLES",
    "TOKENIZER",
    "VOCABULARY",
    "WEIGHTS",
    "check_files",
    "read_text",
    "require_file",
]

MANIFEST = "model.toml"
WEIGHTS = "weights.safetensors"
SAMPLES = "samples.jsonl"
CARD = "README.md"
VOCABULARY = "vocab.txt"
TOKENIZER = "tokenizer.json"
PLAN_LOCK = "plan.lock"

_ALWAYS = (MANIFEST, WEIGHTS, SAMPLES, CARD)
_OPTIONAL = (PLAN_LOCK,)
_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_CODE = frozenset({".dll", ".dylib", ".ipynb", ".py", ".pyc", ".pyd", ".sh", ".so"})


def check_files(directory: Path, spec: PackageSpec | None) -> list[Problem]:
    """Compares the files of a package with those its task needs; every file that is missing or not expected is a
    problem, hidden ones included.

    Without a `spec` any vocabulary file is accepted and none is required.
    """
    vocabulary = {VOCABULARY, TOKENIZER} if spec is None else _vocabulary_files(spec)
    accepted = {*_ALWAYS, *_OPTIONAL, *vocabulary}
    required = {*_ALWAYS, *vocabulary} if spec is not None else set(_ALWAYS)
    problems: list[Problem] = []
    for name in sorted(required):
        try:
            require_file(directory / name)
        except PackageError as error:
            problems += error.problems
    try:
        unexpected = sorted(entry for entry in directory.iterdir() if entry.name not in accepted)
    except OSError as error:
        return [*problems, Problem(str(directory), "", f"cannot be listed: {error.strerror}")]
    return problems + [Problem(entry.name, "", _why_not(entry, accepted)) for entry in unexpected]


def require_file(path: Path) -> None:
    """Refuses what is not a regular file of the package itself.

    Links are refused because a package is complete in its own folder, so that it can be copied, signed and mounted
    as it is; pipes and devices because opening them may block.

    Raises:
        PackageError: The file is missing, a link, or no file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise PackageError([Problem(path.name, "", "is not a regular file; a package holds its files, not links")])
    if not path.exists():
        raise PackageError([Problem(path.name, "", "is missing")])


def read_text(path: Path, limit_bytes: int) -> str:
    """Reads a file of at most `limit_bytes` as UTF-8.

    Raises:
        PackageError: The file is not a regular one, cannot be read, is too large, or is not UTF-8.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            raw = file.read(limit_bytes + 1)
    except OSError as error:
        raise PackageError([Problem(path.name, "", f"cannot be read: {error.strerror}")]) from error
    if len(raw) > limit_bytes:
        raise PackageError([Problem(path.name, "", f"is too large, at most {limit_bytes} bytes are accepted")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError([Problem(path.name, "", f"is not UTF-8 at byte {error.start}")]) from error


def _vocabulary_files(spec: PackageSpec) -> set[str]:
    if isinstance(spec, ForecastSpec):
        return set()
    return {TOKENIZER if spec.text.tokenizer == "subword" else VOCABULARY}


def _why_not(entry: Path, accepted: set[str]) -> str:
    files = ", ".join(sorted(accepted))
    suffix = entry.suffix.lower()
    if suffix in _PICKLES:
        return f"may be a pickle, which can execute code when it is read; weights belong in {WEIGHTS}"
    if suffix in _CODE:
        return f"can execute code, which no file of a package may; accepted are {files}"
    if entry.is_dir():
        return f"is a folder; accepted are the files {files}"
    return f"is not part of a package of this task; accepted are {files}"
