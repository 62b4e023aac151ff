"""The recurrent stack equals torch's modules and the reference, and neither padding nor chunks show."""

import pytest
import torch
from torch import nn

from conveyor.nn import recurrent
from conveyor.nn.cells import run_stack, split_weights
from conveyor.nn.recurrent import RecurrentStack
from conveyor.spec import RecurrentSpec
from support.threads import one_computing_thread as one_computing_thread

CELLS = ("rnn", "gru", "lstm")
TORCH_MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
LENGTHS = [7, 1, 0, 4, 11]


def make_stack(cell: str, layers: int, bidirectional: bool, hidden: int = 4) -> RecurrentStack:
    torch.manual_seed(11)
    spec = RecurrentSpec(cell=cell, hidden=hidden, layers=layers, bidirectional=bidirectional)
    return RecurrentStack(5, spec).requires_grad_(False)


def reference_weights(stack: RecurrentStack) -> list[list]:
    return [
        [split_weights(stack.spec.cell, *module.parameters()) for module in layer.values()] for layer in stack.layers
    ]


def torch_twin(stack: RecurrentStack) -> nn.RNNBase:
    """torch's own stacked module with the same weights."""
    spec = stack.spec
    module = TORCH_MODULES[spec.cell](
        5, spec.hidden, spec.layers, bidirectional=spec.bidirectional, batch_first=True, dtype=torch.float64
    )
    state = {}
    for number, layer in enumerate(stack.layers):
        for direction, suffix in (("forwards", ""), ("backwards", "_reverse")):
            if direction in layer:
                for name, tensor in layer[direction].state_dict().items():
                    state[name.replace("_l0", f"_l{number}{suffix}")] = tensor
    module.load_state_dict(state)
    return module


def inside(steps: int) -> torch.Tensor:
    return (torch.arange(steps) < torch.tensor(LENGTHS)[:, None])[..., None]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_the_reference(cell: str, layers: int, bidirectional: bool) -> None:
    """Outputs and final states equal the reference cells' to 1e-6 in float64, rows without steps included."""
    stack = make_stack(cell, layers, bidirectional).double()
    x = torch.randn(5, 13, 5, dtype=torch.float64)
    expected_outputs, expected_final = run_stack(reference_weights(stack), x, LENGTHS)

    outputs, final = stack(x, torch.tensor(LENGTHS))

    torch.testing.assert_close(torch.where(inside(13), outputs, 0.0), expected_outputs, rtol=0, atol=1e-6)
    torch.testing.assert_close(final, expected_final, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_torch_over_packed_rows(cell: str, bidirectional: bool) -> None:
    """Outputs equal torch's own stacked, bidirectional module on packed sequences to 1e-6 in float64."""
    stack = make_stack(cell, 2, bidirectional).double()
    rows = torch.tensor(LENGTHS) > 0  # torch refuses to pack a row without steps
    x, lengths = torch.randn(5, 13, 5, dtype=torch.float64)[rows], torch.tensor(LENGTHS)[rows]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(torch_twin(stack)(packed)[0], batch_first=True, total_length=13)

    outputs, _ = stack(x, lengths)

    torch.testing.assert_close(torch.where(inside(13)[rows], outputs, 0.0), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chunk_steps", [1, 4, 12])
def test_chunks_do_not_show(cell: str, chunk_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and final states of a run cut into chunks are those of a whole run, bit for bit.

    As a server runs them: on one thread and without gradients. Otherwise torch rounds by the shape of a call here and
    there.
    """
    stack = make_stack(cell, 2, bidirectional=True, hidden=48)
    x, lengths = torch.randn(5, 13, 5), torch.tensor(LENGTHS)
    with torch.inference_mode():
        expected_outputs, expected_final = stack(x, lengths)
        monkeypatch.setattr(recurrent, "CHUNK_STEPS", chunk_steps)
        outputs, final = stack(x, lengths)

    assert torch.equal(expected_outputs, outputs)
    assert torch.equal(expected_final, final)


@pytest.mark.parametrize("cell", CELLS)
def test_chunks_do_not_show_in_gradients(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients flow through chunks as through a whole run."""
    stack = make_stack(cell, 2, bidirectional=True).double().requires_grad_(True)
    x, lengths = torch.randn(5, 13, 5, dtype=torch.float64), torch.tensor(LENGTHS)
    outputs, final = stack(x, lengths)
    expected = torch.autograd.grad((outputs * inside(13)).sum() + final.square().sum(), stack.parameters())
    monkeypatch.setattr(recurrent, "CHUNK_STEPS", 4)

    outputs, final = stack(x, lengths)
    actual = torch.autograd.grad((outputs * inside(13)).sum() + final.square().sum(), stack.parameters())

    assert all(gradient.abs().max() > 0 for gradient in expected)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_does_not_matter(cell: str) -> None:
    """Valid outputs and final states keep every bit whatever stands past a row's length, not a number included."""
    stack = make_stack(cell, 2, bidirectional=True)
    x, lengths = torch.randn(5, 13, 5), torch.tensor(LENGTHS)
    expected_outputs, expected_final = stack(x, lengths)

    outputs, final = stack(torch.where(inside(13), x, torch.nan), lengths)

    assert torch.equal(torch.where(inside(13), expected_outputs, 0.0), torch.where(inside(13), outputs, 0.0))
    assert torch.equal(expected_final, final)


def test_a_batch_without_steps_ends_in_zeros() -> None:
    """Zero steps are a valid input."""
    outputs, final = make_stack("lstm", 2, bidirectional=True)(torch.zeros(3, 0, 5), torch.zeros(3, dtype=torch.int64))

    assert (3, 0, 8) == outputs.shape
    assert torch.equal(torch.zeros(3, 8), final)


def test_a_new_lstm_remembers() -> None:
    """A new LSTM's biases are zero but the forget gate's, whose sum is one, in every layer and direction."""
    stack = make_stack("lstm", 2, bidirectional=True)

    for weights in (weights for layer in reference_weights(stack) for weights in layer):
        biases = [gate.bias_input + gate.bias_recurrent for gate in weights]
        assert [0.0, 1.0, 0.0, 0.0] == [bias.unique().item() for bias in biases]


def test_new_recurrent_weights_are_orthogonal() -> None:
    """Each gate's recurrent weights start orthogonal."""
    for gate in reference_weights(make_stack("gru", 1, bidirectional=False))[0][0]:
        torch.testing.assert_close(gate.weight_recurrent @ gate.weight_recurrent.T, torch.eye(4))
