"""Tiny packages with seeded random weights: every task, every file, a few kilobytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from conveyor.features.vocabulary import VOCABULARY_FILE, Vocabulary
from conveyor.nn.models import build
from conveyor.repository.writer import write_package
from conveyor.spec import PackageSpec, package_spec_adapter
from conveyor.training.predictor import Predictor, result_object

__all__ = ["FORECAST", "SEGMENT", "SENTIMENT", "TAG", "write_tiny_models", "write_tiny_package"]

_COMMON = {"format_version": 1, "description": "seeded random weights, for tests", "license": "MIT"}
_WORDS = "the a good bad film was not very plain story of two ships that never met".split()  # noqa: SIM905
_CHARACTERS = "今天天气很好我们去公园走走"

SENTIMENT = package_spec_adapter.validate_python(
    _COMMON
    | {
        "name": "sentiment-en",
        "task": "sentiment",
        "text": {"tokenizer": "word", "columns": [{"kind": "lower", "size": 40, "dim": 8}]},
        "recurrent": {"hidden": 8, "bidirectional": True},
        "pooling": "mean",
        "labels": ["negative", "positive"],
    }
)
TAG = package_spec_adapter.validate_python(
    _COMMON
    | {
        "name": "pos-en",
        "task": "tag",
        "text": {
            "tokenizer": "word",
            "columns": [{"kind": "lower", "size": 40, "dim": 8}, {"kind": "suffix", "length": 2, "size": 40, "dim": 4}],
        },
        "recurrent": {"hidden": 8, "layers": 2, "bidirectional": True},
        "scheme": "plain",
        "labels": ["NOUN", "VERB", "X"],
    }
)
SEGMENT = package_spec_adapter.validate_python(
    _COMMON
    | {
        "name": "segment-zh",
        "task": "tag",
        "text": {"tokenizer": "character", "columns": [{"kind": "token", "size": 40, "dim": 8}]},
        "recurrent": {"hidden": 8, "bidirectional": True},
        "scheme": "bmes",
        "crf": True,
        "labels": ["B", "M", "E", "S"],
    }
)
FORECAST = package_spec_adapter.validate_python(
    _COMMON
    | {
        "name": "forecast-electricity",
        "task": "forecast",
        "series": {
            "features": ["demand"],
            "targets": ["demand"],
            "frequency": "30min",
            "calendar": ["time_of_day"],
            "half_life_steps": 48.0,
        },
        "recurrent": {"hidden": 8},
        "horizon": 6,
        "default_horizon": 4,
        "quantiles": [0.1, 0.5, 0.9],
        "history": 10,
    }
)

_SAMPLES: Mapping[str, Sequence[Mapping[str, object]]] = {
    "sentiment-en": [{"input": "a good film"}, {"input": ""}],
    "pos-en": [{"input": "two ships never met"}, {"input": ["the", "story"]}],
    "segment-zh": [{"input": "今天天气很好"}],
    "forecast-electricity": [
        {"input": {"values": [10.0, 12.0, None, 11.5], "start": "2024-03-01T00:00:00Z"}, "horizon": 3},
        {"input": {"values": [7.0]}},
    ],
}


def write_tiny_package(
    models: Path, spec: PackageSpec, *, seed: int = 0, version: str = "1", samples: Sequence[Mapping[str, object]] = ()
) -> Path:
    """Writes one package whose samples are what its weights give; returns its directory."""
    torch.manual_seed(seed)
    model = build(spec).eval()
    with tempfile.TemporaryDirectory() as scratch:
        files = {}
        if spec.task != "forecast":
            _vocabulary(spec).save(Path(scratch))
            files[VOCABULARY_FILE] = (Path(scratch) / VOCABULARY_FILE).read_text(encoding="utf-8")
        predictor = Predictor(spec, Path(scratch), model)
        lines = [
            {**sample, "output": result_object(predictor.answer(sample))} for sample in samples or _SAMPLES[spec.name]
        ]
    directory = models / spec.name / version
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    write_package(directory, spec, tensors, files, "# a package for tests\n", lines)
    return directory


def write_tiny_models(models: Path) -> Path:
    """Writes one package of each kind; returns the directory."""
    for seed, spec in enumerate((SENTIMENT, TAG, SEGMENT, FORECAST)):
        write_tiny_package(models, spec, seed=seed)
    return models


def _vocabulary(spec: PackageSpec) -> Vocabulary:
    assert spec.task != "forecast"
    words = _CHARACTERS if spec.text.tokenizer == "character" else _WORDS
    entries = {
        column.name: dict.fromkeys(word[-column.length :] if column.length else word for word in words)
        for column in spec.text.columns
    }
    return Vocabulary(entries)
