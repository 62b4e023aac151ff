"""The command `conveyor bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from conveyor.bench.options import BenchOptions, Protocol
from conveyor.errors import ConveyorError
from conveyor.spec import Task

__all__ = ["bench"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_EXTRA = ("aiohttp", "hdrh", "matplotlib")
_FILE = click.Path(dir_okay=False, path_type=Path)
_INTERRUPTED_EXIT = 130
_TYPES: dict[str, Any] = {
    "task": click.Choice(get_args(Task)),
    "protocol": click.Choice(get_args(Protocol)),
    "input": _FILE,
    **dict.fromkeys(("rate", "duration", "warmup", "deadline"), float),
    **dict.fromkeys(("connections", "streams", "items", "seed"), int),
}


def _bench_options(command: CommandT) -> CommandT:
    """Adds an option for every field but the URL; what is not given is left to the field's default."""
    for name, info in reversed(BenchOptions.model_fields.items()):
        if name == "url":
            continue
        flag = f"--{name.replace('_', '-')}"
        default = f"  [default: {info.default}]" if info.default is not None and info.default is not False else ""
        shown = f"{info.description}{default}"
        if name == "allow_remote":
            option = click.option(flag, name, is_flag=True, help=shown)
        else:
            option = click.option(flag, name, type=_TYPES.get(name), default=None, help=shown)
        command = option(command)
    return command


@click.command()
@click.argument("url")
@_bench_options
@click.option("--output", type=_FILE, default=None, help="Write the report as JSON, with the whole histogram.")
@click.option("--plot", "picture", type=_FILE, default=None, help="Draw latency over percentile as a PNG.")
def bench(url: str, output: Path | None, picture: Path | None, **flags: object) -> None:
    """Put load on the server at URL (http://HOST:PORT or grpc://HOST:PORT) and report how it answers.

    Ctrl-C ends the measurement early, with the report of what was done so far.
    """
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise click.ClickException(f"{', '.join(missing)} missing; install with: pip install 'conveyor[bench]'")
    from conveyor.bench.run import run
    from conveyor.bench.table import render_table

    options = _read_options(url, flags)
    for path in (output, picture):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.UsageError(f"there is no folder {path.parent}")
    try:
        report = run(options)
        click.echo(render_table(report))
        if output is not None:
            output.write_text(report.to_json(), encoding="utf-8")
        if picture is not None:
            from conveyor.bench.plot import plot

            plot(report, picture)
    except ConveyorError as error:
        where = f"{error.field}: " if error.field else ""
        raise click.ClickException(f"{where}{error.message}") from error
    if report.interrupted:
        sys.exit(_INTERRUPTED_EXIT)


def _read_options(url: str, flags: dict[str, object]) -> BenchOptions:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return BenchOptions.model_validate({"url": url, **given})
    except ValidationError as error:
        lines = [_explain(detail["loc"], detail["msg"]) for detail in error.errors()]
        raise click.UsageError("\n".join(lines)) from error


def _explain(location: tuple[int | str, ...], message: str) -> str:
    where = "".join(f"{name}: " for name in location)
    return where + message.removeprefix("Value error, ")
