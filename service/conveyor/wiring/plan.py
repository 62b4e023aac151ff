"""`conveyor plan`: measures how a package is best executed here, and writes that into its `plan.lock`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conveyor.engine.executors.network import resolve_device
from conveyor.engine.planning.planner import make_plan
from conveyor.engine.planning.synthetic import synthetic_rows
from conveyor.errors import InvalidArgument, NotFound, PackageError
from conveyor.gateway.codecs import Codec, ForecastCodec, SentimentCodec, build_codec
from conveyor.gateway.items import parse_line, series_item, text_item, text_or_tokens_item
from conveyor.repository.files import MANIFEST, PLAN_LOCK, SAMPLES
from conveyor.repository.layout import scan
from conveyor.repository.manifest import read_manifest
from conveyor.repository.plan_lock import DevicePlan, write_plan
from conveyor.repository.samples import read_samples
from conveyor.settings import ServeSettings
from conveyor.spec import PackageSpec
from conveyor.wire.messages import Inputs
from conveyor.wiring.check import check

__all__ = ["ROWS", "find_package", "plan", "table"]

# Enough that a candidate which flips one label in a thousand is seen to do so.
ROWS = 3000
_SEED = 0


def find_package(models: Path, target: str, version: str | None) -> Path:
    """The folder of a package: `target` itself if it is one, else the model of that name, its highest version or
    the one that is named.

    Raises:
        NotFound: There is no such model or version.
        PackageError: `models` is not a folder that can be read.
    """
    if (Path(target) / MANIFEST).is_file():
        return Path(target).absolute()
    versions = scan(models).versions.get(target, {})
    for key, directory in versions.items():
        if version in (None, key.version):
            return directory.absolute()
    raise NotFound(f"there is no package in {target!r}, nor such a model or version in {models}")


def plan(settings: ServeSettings, directory: Path, data: Path | None, margin: float) -> tuple[str, DevicePlan]:
    """Plans a package for the device of the settings, and writes the plan.

    Args:
        directory: `…/<name>/<version>`, absolute.
        data: Items as JSON lines, as for `conveyor infer`, of which 3 000 are tried; the package's samples and rows
            made up from its vocabulary, if None.

    Returns:
        The kind of device, and its plan.

    Raises:
        PackageError: The package is refused, or would be with the new plan, which is not kept then.
        InvalidArgument: A line of the data can't be used, or the device does not exist.
    """
    spec = read_manifest(directory / MANIFEST)
    codec = build_codec(spec, directory)
    rows, source = _data_rows(codec, data) if data else _own_rows(codec, spec, directory)
    try:
        device = resolve_device(settings.device)
    except ValueError as error:
        raise InvalidArgument(str(error), field="device") from error
    kind, found = make_plan(directory, str(device), rows, source, margin)
    lock = directory / PLAN_LOCK
    before = lock.read_bytes() if lock.is_file() else None
    write_plan(directory, kind, found)
    problems = asyncio.run(check(settings.model_copy(update={"precision": "auto"}), directory))
    if problems:
        if before is None:
            lock.unlink()
        else:
            lock.write_bytes(before)
        raise PackageError(problems)
    return kind, found


def _data_rows(codec: Codec, data: Path) -> tuple[list[Inputs], str]:
    """Some of the lines, chosen by a seed."""
    with data.open("rb") as file:
        lines = [(number, line) for number, line in enumerate(file, start=1) if line.strip()]
    if not lines:
        raise InvalidArgument("holds no line", field=data.name)
    chosen = np.random.default_rng(_SEED).permutation(len(lines))[:ROWS]
    numbered = [lines[index] for index in sorted(chosen.tolist())]
    rows = [_encode(codec, parse_line(line, f"line {number}"), f"line {number}") for number, line in numbered]
    return rows, f"{len(rows)} of the {len(lines)} lines of {data.name}"


def _own_rows(codec: Codec, spec: PackageSpec, directory: Path) -> tuple[list[Inputs], str]:
    samples = [
        _encode(codec, sample.input, f"{SAMPLES} line {sample.line}")
        for sample in read_samples(directory / SAMPLES, spec)
    ]
    made_up = synthetic_rows(spec, max(ROWS - len(samples), 0), _SEED)
    return [*samples, *made_up], f"{len(samples)} samples of the package and {len(made_up)} synthetic rows"


def _encode(codec: Codec, item: object, field: str) -> Inputs:
    if isinstance(codec, SentimentCodec):
        return codec.encode([text_item(item, field)]).inputs
    if isinstance(codec, ForecastCodec):
        return codec.encode(series_item(item, field))[0]
    return codec.encode(text_or_tokens_item(item, field))[0]


def table(found: DevicePlan) -> Sequence[str]:
    """A plan as lines of text."""
    sizes = "".join(f"{f'µs/row ×{size}':>13}" for size in found.batch_rows)
    lines = [f"{'candidate':24}{sizes}{'speed':>8}{'flips':>7}{'within':>8}{'largest':>10}  refused because"]
    for one in found.candidates:
        name = f"{one.executor} {one.precision}"
        mark = "*" if (one.executor, one.precision) == (found.executor, found.precision) else " "
        times = "".join(f"{each:13.1f}" for each in one.row_us) or " " * len(sizes)
        speed = f"{one.speedup:8.2f}" if one.row_us else " " * 8
        counts = f"{one.flips:7}{one.flips_within:8}{one.largest_difference:10.2g}"
        lines.append(f"{mark} {name:22}{times}{speed}{counts}  {one.refused}".rstrip())
    return lines
