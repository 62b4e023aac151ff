"""A classifier's read-out in C: what torch gives, each row for itself."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conveyor.engine.executors.kernel.library import Kernel
from conveyor.engine.executors.kernel.readout import KernelReadOut
from conveyor.nn.models import SequenceClassifier
from conveyor.spec import RecurrentSpec
from support.kernels import kernel as kernel
from support.packages import SENTIMENT


def classifier(hidden: int, labels: int) -> SequenceClassifier:
    """One that pools by `max`, of either direction `hidden` units."""
    spec = SENTIMENT.model_copy(
        update={
            "recurrent": RecurrentSpec(hidden=hidden, bidirectional=True),
            "labels": tuple(f"label {number}" for number in range(labels)),
            "pooling": "max",
        }
    )
    return SequenceClassifier(spec).eval().requires_grad_(False)


@settings(max_examples=40)
@given(
    hidden=st.integers(1, 40),
    labels=st.integers(2, 7),
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=9),
    sharpness=st.sampled_from([1.0, 30.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_gives_what_torch_gives_and_each_row_alike_alone(
    kernel: Kernel, hidden: int, labels: int, lengths: list[int], sharpness: float, seed: int
) -> None:
    """Padding is not read, and rows without steps are answered."""
    torch.manual_seed(seed)
    model = classifier(hidden, labels)
    model.head.weight.mul_(sharpness)
    outputs = torch.full((len(lengths), max(lengths) + 2, 2 * hidden), float("nan"))
    for row, length in enumerate(lengths):
        outputs[row, :length] = torch.randn(length, 2 * hidden).tanh()
    ends = torch.tensor(lengths)
    found = KernelReadOut(model, kernel)(outputs, ends)["probabilities"]
    expected = model.read_out(outputs.nan_to_num(0.0), ends)["probabilities"]
    # Rounding of the scores, which grow with the weights, is what the probabilities may differ by.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * max(1.0, sharpness / 4))
    for row, length in enumerate(lengths):
        alone = KernelReadOut(model, kernel)(outputs[row : row + 1, :length], ends[row : row + 1])["probabilities"]
        assert torch.equal(found[row], alone[0])


def test_what_is_not_finite_stays_in_its_row(kernel: Kernel) -> None:
    """At whatever step it is."""
    torch.manual_seed(0)
    model = classifier(20, 2)
    for step in range(5):
        outputs = torch.randn(3, 5, 40)
        outputs[1, step, 17] = float("nan")
        found = KernelReadOut(model, kernel)(outputs, torch.tensor([5, 5, 5]))["probabilities"]
        assert found[1].isnan().all()
        assert found[::2].isfinite().all()
