"""The networks of the tasks: what they put out, and that a row's answer depends on that row alone."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conveyor.nn.models import TaskModel, build
from conveyor.spec import PackageSpec, package_spec_adapter

TEXT = {
    "tokenizer": "word",
    "columns": [{"kind": "token", "size": 50, "dim": 12}, {"kind": "suffix", "length": 3, "size": 20, "dim": 5}],
}
SERIES = {"features": ["a", "b"], "targets": ["b"], "frequency": "h", "half_life_steps": 24}
TASKS: dict[str, dict[str, Any]] = {
    "last": {"task": "sentiment", "text": TEXT, "pooling": "last", "labels": ["negative", "positive"]},
    "mean": {"task": "sentiment", "text": TEXT, "pooling": "mean", "labels": ["negative", "positive"]},
    "max": {"task": "sentiment", "text": TEXT, "pooling": "max", "labels": ["negative", "positive"]},
    "tagger": {"task": "tag", "text": TEXT, "scheme": "plain", "labels": ["A", "B", "C"]},
    "crf": {"task": "tag", "text": TEXT, "scheme": "plain", "labels": ["A", "B", "C"], "crf": True},
    "forecaster": {
        "task": "forecast",
        "series": SERIES,
        "horizon": 4,
        "default_horizon": 2,
        "quantiles": [0.1, 0.5, 0.9],
        "history": 10,
    },
}
CELLS = ("rnn", "gru", "lstm")


def make_spec(task: str, cell: str = "lstm") -> PackageSpec:
    recurrent = {"cell": cell, "hidden": 16, "layers": 2, "bidirectional": task != "forecaster"}
    about = {"format_version": 1, "name": "tiny", "description": "tiny", "license": "MIT"}
    return package_spec_adapter.validate_python(about | TASKS[task] | {"recurrent": recurrent})


def make_model(task: str, cell: str = "lstm") -> TaskModel:
    torch.manual_seed(5)
    model = build(make_spec(task, cell)).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += torch.randn_like(parameter) / 4  # so that no two tags tie and the CRF's scores are not zero
    return model


def make_inputs(model: TaskModel, rows: int, steps: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if model.spec.task == "forecast":
        return torch.randn(rows, steps, model.spec.series.width, generator=generator)
    return torch.randint(1, 20, (rows, steps, 2), generator=generator, dtype=torch.int32)


def assert_same(expected: Tensor, actual: Tensor) -> None:
    """Equal: tags exactly, numbers to 1e-5. On one kind of processor they are equal bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 if actual.is_floating_point() else 0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12) | st.just(1), min_size=1, max_size=9),
    padding=st.integers(0, 9),
    seed=st.integers(0, 1000),
)
def test_an_answer_depends_on_its_row_alone(task: str, cell: str, lengths: list[int], padding: int, seed: int) -> None:
    """A row's answer is the same alone, as two, and among others at any padding."""
    model = make_model(task, cell)
    inputs = make_inputs(model, len(lengths), max(lengths) + padding, seed)
    with torch.inference_mode():
        batch = model.predict(inputs, torch.tensor(lengths))
        for row, length in enumerate(lengths):
            for copies in (1, 2):
                alone = model.predict(
                    inputs[row : row + 1, :length].repeat(copies, 1, 1), torch.full((copies,), length)
                )
                for name, expected in batch.items():
                    valid = slice(length) if model.stepwise else slice(None)
                    assert_same(expected[row][valid], alone[name][0][valid])


def test_classifier_gives_probabilities() -> None:
    """Each row's probabilities sum to one; float32 [rows, labels]."""
    model = make_model("mean")

    probabilities = model.predict(make_inputs(model, 3, 6, 0), torch.tensor([6, 0, 2]))["probabilities"]

    assert ((3, 2), torch.float32) == (probabilities.shape, probabilities.dtype)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_pooling_is_over_the_rows_own_steps(pooling: str) -> None:
    """The logits are the head's of the pooled outputs; a row without steps pools to zeros."""
    model = make_model(pooling)
    ids, lengths = make_inputs(model, 3, 6, 0), torch.tensor([4, 0, 6])
    outputs, final = model.recurrent(model.embeddings(ids), lengths)
    own = outputs[0, :4]
    pooled = {"last": final[0], "mean": own.mean(dim=0), "max": own.amax(dim=0)}[pooling]

    logits = model(ids, lengths)

    torch.testing.assert_close(logits[0], model.head(pooled))
    torch.testing.assert_close(logits[1], model.head.bias)


def test_tagger_gives_the_most_probable_tag_of_each_step() -> None:
    """Without a CRF a tag is the argmax of its step and its score the softmax there; int32 and float32."""
    model = make_model("tagger")
    ids, lengths = make_inputs(model, 2, 5, 0), torch.tensor([5, 3])
    expected = torch.softmax(model(ids, lengths), dim=-1)

    result = model.predict(ids, lengths)

    assert (torch.int32, torch.float32) == (result["tags"].dtype, result["scores"].dtype)
    assert torch.equal(expected.argmax(dim=-1), result["tags"].long())
    assert torch.equal(expected.amax(dim=-1), result["scores"])


def test_tagger_with_a_crf_gives_its_path() -> None:
    """With a CRF tags and scores are the best path's and its marginals."""
    model = make_model("crf")
    ids, lengths = make_inputs(model, 2, 5, 0), torch.tensor([5, 3])
    tags, marginals = model.crf.decode(model(ids, lengths), lengths)

    result = model.predict(ids, lengths)

    assert torch.equal(tags, result["tags"].long())
    assert torch.equal(marginals, result["scores"])


@pytest.mark.parametrize("cell", CELLS)
def test_forecasts_from_many_steps_are_those_of_shorter_rows(cell: str) -> None:
    """`forward_steps` at a step gives what `predict` gives for the row cut after it."""
    model = make_model("forecaster", cell)
    inputs, steps = make_inputs(model, 3, 8, 0), torch.tensor([0, 4, 7])

    forecasts = model.forward_steps(inputs, torch.full((3,), 8), steps)

    assert (3, 3, 4, 1, 4) == forecasts.shape
    for origin, step in enumerate(steps.tolist()):
        expected = model.predict(inputs[:, : step + 1], torch.full((3,), step + 1))["forecast"]
        torch.testing.assert_close(forecasts[:, origin], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_a_description_alone_tells_names_and_shapes(task: str) -> None:
    """Built without memory, on the meta device, a network has the names and shapes of a real one."""
    with torch.device("meta"):
        described = build(make_spec(task))

    expected = {name: tensor.shape for name, tensor in build(make_spec(task)).state_dict().items()}
    assert expected == {name: tensor.shape for name, tensor in described.state_dict().items()}


def test_names_of_tensors() -> None:
    """The names that stand in a package's weights are pinned: a change breaks every package there is."""
    stem = "recurrent.layers"
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    expected = {
        "embeddings.token.weight",
        "embeddings.suffix3.weight",
        *(f"{stem}.{n}.{way}.{part}" for n in (0, 1) for way in ("forwards", "backwards") for part in parts),
        "head.weight",
        "head.bias",
        "crf.start",
        "crf.end",
        "crf.transitions",
    }
    assert expected == build(make_spec("crf")).state_dict().keys()


def test_padding_embeds_to_zeros() -> None:
    """Id 0 has no embedding in a new network, and none is learnt."""
    embeddings = build(make_spec("tagger")).embeddings
    zeros = embeddings(torch.zeros(2, 3, 2, dtype=torch.int32))
    zeros.sum().backward()

    assert torch.equal(torch.zeros(2, 3, 17), zeros)
    assert 0 == embeddings["token"].weight.grad.abs().sum()


@pytest.mark.parametrize("task", TASKS)
def test_dropout_acts_in_training_only(task: str) -> None:
    """In evaluation mode a network built with dropout answers as one without; in training mode it draws."""
    model = build(make_spec(task), dropout=0.5)
    twin = build(make_spec(task))
    twin.load_state_dict(model.state_dict())
    inputs, lengths = make_inputs(model, 2, 6, 0), torch.tensor([6, 6])

    def run(network: TaskModel) -> Tensor:
        if model.spec.task == "forecast":
            return network.forward_steps(inputs, lengths, torch.tensor([5]))
        return network(inputs, lengths)

    assert torch.equal(run(twin.eval()), run(model.eval()))
    assert not torch.equal(run(model.train()), run(model))
