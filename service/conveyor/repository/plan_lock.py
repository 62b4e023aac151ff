"""`plan.lock`: how a package is executed on each kind of device, as measured; written by `conveyor plan`.

The file holds names and numbers only. It belongs to the weights and the description it was measured with, and is
refused beside any others.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from conveyor.errors import PackageError, Problem
from conveyor.repository.files import MANIFEST, PLAN_LOCK, WEIGHTS
from conveyor.repository.notation import dotted
from conveyor.repository.toml import read_toml, with_tuples

__all__ = ["CandidateFigures", "DevicePlan", "PlanLock", "read_plan_lock", "write_plan"]

_Name = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
_Kind = Annotated[str, Field(pattern=r"^(cpu|cuda)-[a-z0-9_-]{1,64}$")]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CandidateFigures(_Part):
    """What was found about one candidate."""

    executor: _Name
    precision: _Name
    refused: str = Field(default="", description="why it may not be chosen; empty if it may")
    row_us: tuple[float, ...] = Field(default=(), description="microseconds a row, for each of `batch_rows`")
    speedup: float = Field(default=0.0, ge=0, description="against the reference, over all of `batch_rows`")
    flips: int = Field(default=0, ge=0, description="labels or tags that differ from the reference's beyond the margin")
    flips_within: int = Field(default=0, ge=0, description="those within the margin")
    largest_difference: float = Field(default=0.0, ge=0, description="of any number, as `tolerance` counts it")


class DevicePlan(_Part):
    """The plan for one kind of device, and what it rests on."""

    executor: _Name
    precision: _Name
    device: str = Field(description="the device that was measured")
    data: str = Field(min_length=1, description="where the rows came from")
    rows: int = Field(ge=1)
    margin: float = Field(ge=0, lt=1, description="difference of the two highest probabilities of the reference")
    batch_rows: tuple[int, ...] = Field(min_length=1, description="rows of the batches that were timed")
    batch_weights: tuple[float, ...] = Field(min_length=1, description="what each of them counts")
    versions: Mapping[str, str] = Field(description="of what was measured: torch, and the executor's library")
    candidates: tuple[CandidateFigures, ...] = Field(min_length=1)


class PlanLock(_Part):
    """The plans of a package, by kind of device."""

    format_version: Literal[1] = 1
    weights_sha256: _Hash
    manifest_sha256: _Hash
    devices: Mapping[_Kind, DevicePlan]


def read_plan_lock(directory: Path) -> PlanLock | None:
    """Reads the `plan.lock` of a package; None if it has none.

    Raises:
        PackageError: It is not what it should be, or was measured with other weights or another description.
    """
    path = directory / PLAN_LOCK
    if not path.exists() and not path.is_symlink():
        return None
    lock = _parse(path)
    problems = [
        Problem(PLAN_LOCK, field, f"belongs to another {name}; run `conveyor plan` again, or delete the file")
        for field, name, stated in (
            ("weights_sha256", WEIGHTS, lock.weights_sha256),
            ("manifest_sha256", MANIFEST, lock.manifest_sha256),
        )
        if _sha256(directory / name) != stated
    ]
    if problems:
        raise PackageError(problems)
    return lock


def write_plan(directory: Path, kind: str, plan: DevicePlan) -> None:
    """Puts the plan for a kind of device into a package, beside those for other kinds.

    A lock that can't be used, because it is broken or belongs to other weights, is replaced. The file appears
    complete or not at all.
    """
    try:
        present = read_plan_lock(directory)
    except PackageError:
        present = None
    lock = PlanLock(
        weights_sha256=_sha256(directory / WEIGHTS),
        manifest_sha256=_sha256(directory / MANIFEST),
        devices={**(present.devices if present else {}), kind: plan},
    )
    # Not in the package's own folder, where a file that is left over would be refused.
    unfinished = directory.parent / f".{PLAN_LOCK}.{uuid.uuid4().hex}"
    try:
        with unfinished.open("xb") as file:
            file.write(tomli_w.dumps(lock.model_dump(mode="python"), multiline_strings=False).encode())
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(directory / PLAN_LOCK)
    finally:
        unfinished.unlink(missing_ok=True)


def _parse(path: Path) -> PlanLock:
    document = read_toml(path)
    version = document.get("format_version")
    if version != 1:
        raise PackageError([Problem(path.name, "format_version", f"{version!r} is not supported, this server reads 1")])
    try:
        return PlanLock.model_validate(with_tuples(document), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise PackageError([Problem(path.name, dotted(d["loc"]), d["msg"]) for d in found]) from error


def _sha256(path: Path) -> str:
    """The hash of a file; of one that can't be read, which is a problem of its own, nothing's."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
