"""The model card: what a package learned from, how well it does, what it costs, and what it is not good at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conveyor.spec import PackageSpec
from conveyor.training.behaviour import Verdict
from conveyor.training.loop import Outcome
from conveyor.training.recipe import DataFile, Recipe

__all__ = ["Cost", "render_card"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs: microseconds a row on one core, the rows' mean steps, and the bytes of the weights."""

    row_us: float
    mean_steps: float
    weights_bytes: int
    parameters: int


def render_card(
    recipe: Recipe,
    spec: PackageSpec,
    outcome: Outcome,
    measures: Mapping[str, float],
    cost: Cost,
    verdicts: Mapping[str, Verdict],
) -> str:
    """Writes `README.md`.

    Args:
        measures: Of the stored weights on the development parts.
        verdicts: Of the behaviour suite, by capability; empty if the recipe has none.
    """
    training = recipe.training
    sections = {
        "Network": _network(spec, cost, training.stored, training.clip_norm),
        "Data": _table(("data set", "source", "licence", "part", "SHA-256 of the file"), map(_data_row, recipe.data)),
        "Quality": (
            "Measured on the development parts with the stored weights. The same parts chose the epoch: expect a "
            "little less elsewhere.\n\n"
            + _table(("measure", "value"), ((n, f"{v:.4g}") for n, v in measures.items() if n != "score"))
        ),
        "Behaviour": _behaviour(recipe.name, verdicts),
        "Cost": (
            f"{cost.row_us:,.0f} microseconds a row of {cost.mean_steps:,.0f} steps on average, one row at a time on "
            "one core of the training machine, encoding included."
        ),
        "Recipe": (
            f"`conveyor train {recipe.name}`: {len(outcome.history)} epochs, the best of which was number "
            f"{outcome.epoch}; {outcome.seconds / 60:.0f} minutes on one core.\n\n"
            + _table(("setting", "value"), ((name, str(value)) for name, value in training.model_dump().items()))
        ),
        "What it is not good at": "\n".join(f"- {limit}" for limit in recipe.limits),
    }
    head = f"# {spec.name}\n\n{spec.description}\n\nLicence of the weights: {spec.license}.\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items() if text)


def _behaviour(name: str, verdicts: Mapping[str, Verdict]) -> str:
    if not verdicts:
        return ""
    passed = sum(verdict.passed for verdict in verdicts.values())
    cases = sum(verdict.cases for verdict in verdicts.values())
    rows = (
        (capability, f"{verdict.passed} of {verdict.cases}", "; ".join(verdict.failures))
        for capability, verdict in verdicts.items()
    )
    return (
        f"{passed} of {cases} cases of `{name}.behaviour.jsonl`, beside the recipe, come out as a reader would have "
        "it.\n\n" + _table(("capability", "passed", "not passed"), rows)
    )


def _network(spec: PackageSpec, cost: Cost, stored: str, clip_norm: float) -> str:
    recurrent = spec.recurrent
    direction = "bidirectional " if recurrent.bidirectional else ""
    return (
        f"{recurrent.layers} {direction}{recurrent.cell.upper()} layer(s) of {recurrent.hidden} units a direction; "
        f"{cost.parameters:,} parameters, stored as {stored} in {cost.weights_bytes / 1e6:.1f} MB. "
        f"The forget gate's bias began at one, and the norm of the gradient was clipped to {clip_norm:g}."
    )


def _data_row(data: DataFile) -> tuple[str, ...]:
    return data.name, data.source, data.license, f"{data.part}: {data.split}", f"`{data.sha256}`"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
