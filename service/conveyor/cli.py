"""The `conveyor` command: arguments to settings, errors to exit codes."""

from __future__ import annotations

import asyncio
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from conveyor.bench.command import bench
from conveyor.errors import ConveyorError, PackageError
from conveyor.settings import ENVIRONMENT_PREFIX, SECRETS, ServeSettings
from conveyor.telemetry.logs import configure

__all__ = ["main"]

ResultT = TypeVar("ResultT")
CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _settings_options(*names: str) -> Callable[[CommandT], CommandT]:
    """Adds an option for each named setting, or for all; what is not given stays out of the flags."""

    def decorate(command: CommandT) -> CommandT:
        for name in reversed(names or [name for name in ServeSettings.model_fields if name not in SECRETS]):
            info = ServeSettings.model_fields[name]
            default = "" if info.default is PydanticUndefined else f"  [default: {info.default}]"
            option = click.option(
                f"--{name.replace('_', '-')}", name, default=None, help=f"{info.description}{default}"
            )
            command = option(command)
        return command

    return decorate


def _read_settings(flags: dict[str, object], config: Path | None = None) -> ServeSettings:
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return ServeSettings.read(given, config)
    except ValidationError as error:
        lines = [_explain(detail["loc"], detail["msg"]) for detail in error.errors()]
        raise click.UsageError("\n".join(lines)) from error
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{config}: {error}") from error


def _explain(location: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, location))
    if not name:
        # Of several settings together; the message names them.
        return message
    return f"{name} (--{name.replace('_', '-')}, {ENVIRONMENT_PREFIX}{name.upper()}): {message}"


@click.group()
@click.version_option(package_name="conveyor")
def _conveyor() -> None:
    """Conveyor serves LSTM models over HTTP and gRPC."""
    # Standard output belongs to results; `serve` sets the level it was told.
    configure("warning")


@_conveyor.command()
@_settings_options()
@click.option("--config", type=_FILE, default=None, envvar="CONVEYOR_CONFIG", help="TOML file of these options.")
def serve(config: Path | None, **flags: object) -> None:
    """Start the server."""
    from conveyor.wiring.serve import serve as run_server

    if config is not None and not config.is_file():
        raise click.UsageError(f"--config: there is no file {config}")
    sys.exit(run_server(_read_settings(flags, config)))


@_conveyor.command()
@click.argument("directory", type=_FOLDER)
@_settings_options("device")
def check(directory: Path, **flags: object) -> None:
    """Validate the model package in DIRECTORY (…/NAME/VERSION) without serving it."""
    from conveyor.wiring.check import check as run_check

    problems = asyncio.run(run_check(_read_settings(flags), directory.absolute()))
    for problem in problems:
        click.echo(str(problem))
    if problems:
        sys.exit(1)
    click.echo(f"{directory}: in order")


@_conveyor.command()
@click.argument("target", metavar="MODEL_OR_DIRECTORY")
@click.option("--version", "model_version", default=None, help="Version of the model; the highest by default.")
@click.option("--data", type=_FILE, default=None, help="JSON lines to try, as for infer; made-up rows by default.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.01,
    show_default=True,
    help="A label may differ where the two highest probabilities are no further apart than this.",
)
@_settings_options("models", "device")
def plan(target: str, model_version: str | None, data: Path | None, margin: float, **flags: object) -> None:
    """Measure how a package is best executed on this machine, and write that into its plan.lock."""
    from conveyor.wiring import plan as planning

    settings = _read_settings(flags)
    directory = _report(lambda: planning.find_package(settings.models, target, model_version))
    kind, found = _report(lambda: planning.plan(settings, directory, data, margin))
    click.echo(f"{directory}\n{kind}: {found.device}; {found.data}; margin {found.margin:g}")
    for line in planning.table(found):
        click.echo(line)
    click.echo(f"wrote {directory / 'plan.lock'}: {found.executor} {found.precision}")


@_conveyor.command()
@click.argument("model")
@click.option("--input", "source", type=_FILE, default=None, help="JSON lines to read; standard input by default.")
@click.option("--output", "target", type=_FILE, default=None, help="File to write; standard output by default.")
@click.option("--version", "model_version", default=None, help="Version of the model; the highest by default.")
@click.option("--horizon", type=int, default=None, help="Steps to forecast; the model's default otherwise.")
@_settings_options("models", "device", "precision", "batch_rows", "batch_steps")
def infer(
    model: str,
    source: Path | None,
    target: Path | None,
    model_version: str | None,
    horizon: int | None,
    **flags: object,
) -> None:
    """Run MODEL over a JSON-lines file: a line in is one item of inputs or series, a line out its result."""
    from conveyor.wiring.infer import infer as run_infer

    settings = _read_settings(flags)
    with (
        click.open_file(str(source or "-"), "rb") as lines,
        # Lazily, so that a model that can't be loaded does not cost the results of an earlier run.
        click.open_file(str(target or "-"), "w", encoding="utf-8", lazy=True) as results,
    ):
        failed = _report(lambda: asyncio.run(run_infer(settings, model, model_version, horizon, lines, results)))
    if failed:
        raise click.ClickException(f"{failed} lines gave an error; they say which in the output")


@_conveyor.command()
@click.argument("recipe")
@click.option("--data", type=_FOLDER, envvar="CONVEYOR_DATA_DIR", required=True, help="Folder of the data sets.")
@click.option("--models", type=_FOLDER, default=Path("models"), show_default=True, help="Where the package goes.")
@click.option("--work-dir", type=_FOLDER, default=Path(".build/training"), show_default=True, help="Checkpoints.")
@click.option("--device", default="cpu", show_default=True, help="Where to train: cpu, cuda or cuda:N.")
@click.option("--threads", default=1, show_default=True, help="CPU threads; other numbers give other last bits.")
@click.option("--resume/--restart", default=True, show_default=True, help="Go on from the last checkpoint.")
def train(recipe: str, data: Path, models: Path, work_dir: Path, device: str, threads: int, resume: bool) -> None:
    """Train what RECIPE (a TOML file, or the name of a shipped one) describes and write a package."""
    from conveyor.training.train import train as run_train
    from conveyor.wiring.recipes import find_recipe

    directory = _report(
        lambda: run_train(find_recipe(recipe), data, models, work_dir, resume=resume, device=device, threads=threads)
    )
    click.echo(f"wrote {directory}")


@_conveyor.command()
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path, exists=True), envvar="CONVEYOR_DATA_DIR")
@click.option("--version", "model_version", default=None, help="Version of the model; the highest by default.")
@_settings_options("models", "device", "precision")
def evaluate(model: str, data: Path, model_version: str | None, **flags: object) -> None:
    """Score MODEL on DATA: one file, or the folder in which its recipe's development parts lie."""
    from conveyor.wiring.evaluate import evaluate as run_evaluate

    parts = _report(lambda: run_evaluate(_read_settings(flags), model, model_version, data))
    for part, measures in parts.items():
        click.echo(part)
        for name, value in measures.items():
            click.echo(f"  {name:32} {value:.6g}")


def _report(work: Callable[[], ResultT]) -> ResultT:
    """Runs a command; an error the user can mend is one line and exit code 1."""
    try:
        return work()
    except PackageError as error:
        raise click.ClickException("\n".join(map(str, error.problems))) from error
    except ConveyorError as error:
        where = f"{error.field}: " if error.field else ""
        raise click.ClickException(f"{where}{error.message}") from error


_conveyor.add_command(bench)


def main() -> None:
    """The entry point."""
    _conveyor(prog_name="conveyor")
