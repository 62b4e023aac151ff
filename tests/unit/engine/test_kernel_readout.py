"""A classifier's read-out in C: what torch gives, each row for itself."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor.engine.executors.kernel.layer import install_kernel
from conveyor.engine.executors.kernel.library import Kernel
from conveyor.engine.executors.kernel.readout import KernelReadOut
from conveyor.nn.models import SequenceClassifier
from conveyor.spec import RecurrentSpec
from support.kernels import kernel as kernel
from support.packages import SENTIMENT


def classifier(hidden: int, labels: int, layers: int = 1) -> SequenceClassifier:
    """One that pools by `max`, of either direction `hidden` units."""
    spec = SENTIMENT.model_copy(
        update={
            "recurrent": RecurrentSpec(hidden=hidden, layers=layers, bidirectional=True),
            "labels": tuple(f"label {number}" for number in range(labels)),
            "pooling": "max",
        }
    )
    return SequenceClassifier(spec).eval().requires_grad_(False)


@settings(max_examples=40)
@given(
    hidden=st.integers(1, 40),
    labels=st.integers(2, 7),
    rows=st.integers(1, 9),
    sharpness=st.sampled_from([1.0, 30.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_gives_what_torch_gives_and_each_row_alike_alone(
    kernel: Kernel, hidden: int, labels: int, rows: int, sharpness: float, seed: int
) -> None:
    """Of whatever widths, and scores that are far apart."""
    torch.manual_seed(seed)
    model = classifier(hidden, labels)
    model.head.weight.mul_(sharpness)
    highest = torch.randn(rows, 2 * hidden).tanh()
    found = KernelReadOut(model, kernel)(highest)["probabilities"]
    expected = torch.softmax(model.head(highest), dim=-1)
    # Rounding of the scores, which grow with the weights, is what the probabilities may differ by.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * max(1.0, sharpness / 4))
    for row in range(rows):
        alone = KernelReadOut(model, kernel)(highest[row : row + 1])["probabilities"]
        assert torch.equal(found[row], alone[0])


@settings(max_examples=20)
@given(
    hidden=st.integers(1, 40),
    layers=st.integers(1, 2),
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_a_network_that_pools_on_the_way_gives_what_its_outputs_give(
    kernel: Kernel, hidden: int, layers: int, lengths: list[int], seed: int
) -> None:
    """The same bits as from the outputs of a text that was computed in chunks, and what torch gives to rounding; a text
    without steps is answered."""
    torch.manual_seed(seed)
    model = classifier(hidden, 3, layers)
    sizes = torch.tensor([column.size for column in model.spec.text.columns])
    ids = (torch.rand(len(lengths), max(lengths) + 1, len(sizes)) * sizes).to(torch.int32)
    ends = torch.tensor(lengths)
    with torch.inference_mode():
        expected = model.predict(ids, ends)["probabilities"]
        install_kernel(model, kernel, torch.float32)
        found = model.predict(ids, ends)["probabilities"]
        outputs = model.recurrent.outputs(model.embed(ids), ends)
        assert torch.equal(found, model.read_out(outputs, ends)["probabilities"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_is_not_finite_stays_in_its_row(kernel: Kernel) -> None:
    """Whichever of its numbers it is."""
    torch.manual_seed(0)
    model = classifier(20, 2)
    for unit in (0, 17, 39):
        highest = torch.randn(3, 40)
        highest[1, unit] = float("nan")
        found = KernelReadOut(model, kernel)(highest)["probabilities"]
        assert found[1].isnan().all()
        assert found[::2].isfinite().all()
