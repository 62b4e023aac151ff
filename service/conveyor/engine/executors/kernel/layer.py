"""The layers of a network through the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conveyor.engine.executors.kernel.library import PRECISIONS, Direction, Kernel, Matrix
from conveyor.engine.executors.kernel.readout import KernelReadOut
from conveyor.nn.models import SequenceClassifier, SeriesForecaster, TaskModel
from conveyor.nn.recurrent import RaggedLayer, State

__all__ = ["KernelLayer", "install_kernel", "quantise"]

_GATES = 4
# The largest number of a byte with a sign.
_MOST = 127.0
# What the tables of a model's first layer may take; beyond it the products are computed from the embeddings.
_TABLE_BYTES = 128 * 2**20


def install_kernel(model: TaskModel, kernel: Kernel, dtype: torch.dtype) -> None:
    """Makes the layers of a network compute by the kernel, and what is read out of them for a text's label.

    What layer one gets from its input depends on the ids of a step alone. So for text, where there is room, it is
    looked up: embeddings × input weights, computed here once for every id.

    Args:
        model: In float32 on the CPU.
        kernel: What computes.
        dtype: `torch.float32`, or `torch.bfloat16`: weights, tables, and what is multiplied by weights. `torch.int8`:
            weights, and what is multiplied by them if it lies in (-1, 1), as what a layer puts out does; tables are
            bfloat16, and what else comes in is multiplied in float32. Sums, gates and the cells' states stay float32.
    """
    tables: Sequence[Tensor] = []
    if not isinstance(model, SeriesForecaster):
        tables = list(model.embeddings.parameters())
    first = list(model.recurrent.layers[0].children())
    line_bytes = _GATES * _padded(model.recurrent.spec.hidden, kernel.lanes) * _table_dtype(dtype).itemsize
    if sum(map(len, tables)) * len(first) * line_bytes > _TABLE_BYTES:
        tables = []

    def make(module: nn.RNNBase) -> RaggedLayer:
        return KernelLayer(module, kernel, dtype, tables if module in first else [], bounded=module not in first)

    model.recurrent.use(make, fewest_rows=1)
    if tables and not isinstance(model, SeriesForecaster):
        model.leave_out_embeddings()
    if isinstance(model, SequenceClassifier) and model.spec.pooling == "max":
        model.read_out_by(KernelReadOut(model, kernel))


class KernelLayer(RaggedLayer):
    """One direction of one LSTM layer.

    Args:
        module: The layer in float32 on the CPU, whose weights are copied.
        kernel: What computes.
        dtype: As for `install_kernel`.
        embeddings: [ids, width] of each column, if the layer is to take ids instead of their embeddings.
        bounded: Whether all inputs lie in (-1, 1).
    """

    def __init__(
        self,
        module: nn.RNNBase,
        kernel: Kernel,
        dtype: torch.dtype,
        embeddings: Sequence[Tensor] = (),
        *,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self._kernel = kernel
        self._dtype = torch.int32 if embeddings else torch.float32
        self._hidden = module.hidden_size
        weight_ih, weight_hh, bias_ih, bias_hh = (parameter.detach() for parameter in module.parameters())
        lanes = kernel.lanes
        bias = bias_ih + bias_hh
        # The library reads them where they lie; so they are kept.
        self._held: list[Tensor] = []
        self._direction = Direction(
            hidden=self._hidden,
            blocks=_padded(self._hidden, lanes) // lanes,
            width=len(embeddings) or module.input_size,
            recurrent=self._matrix(weight_hh, lanes, dtype),
        )
        if embeddings:
            first = 0
            places = []
            for table in embeddings:
                width = table.shape[1]
                # The biases come with the first column.
                products = table @ weight_ih[:, first : first + width].T + (bias if first == 0 else 0.0)
                places.append(self._hold(_by_block(products, lanes).to(_table_dtype(dtype))))
                first += width
            self._direction.tables = (ctypes.c_void_p * len(embeddings))(*places)
            self._direction.half_tables = _table_dtype(dtype) == torch.bfloat16
        else:
            in_float32 = dtype == torch.int8 and not bounded
            self._direction.input = self._matrix(weight_ih, lanes, torch.float32 if in_float32 else dtype)
            self._direction.bias = self._hold(_by_block(bias[None], lanes))

    @property
    def num_bytes(self) -> int:
        """What the weights and tables take."""
        return sum(held.nbytes for held in self._held)

    def run(self, x: Tensor, lengths: Tensor, outputs: Tensor, *, backwards: bool) -> None:
        """Runs rows of any lengths from their beginnings, or their ends, on."""
        # A conversion that changes nothing takes as long as ten rows.
        if x.dtype != self._dtype:
            x = x.to(self._dtype)
        self._kernel.run(self._direction, x.contiguous(), lengths.contiguous(), outputs, backwards=backwards)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Runs some steps: shapes and dtypes as in `RecurrentStack.call`."""
        rows, steps, _ = x.shape
        outputs = torch.empty(rows, steps, self._hidden)
        if isinstance(state, tuple):
            h, c = (part[0].clone(memory_format=torch.contiguous_format) for part in state)
        else:
            h, c = torch.zeros(rows, self._hidden), torch.zeros(rows, self._hidden)
        lengths = torch.full((rows,), steps)
        self._kernel.run(self._direction, x.to(self._dtype).contiguous(), lengths, outputs, (h, c))
        return outputs, (h[None], c[None])

    def _hold(self, tensor: Tensor) -> int:
        """Keeps a tensor, and tells where it lies."""
        self._held.append(tensor.contiguous())
        return self._held[-1].data_ptr()

    def _matrix(self, weight: Tensor, lanes: int, dtype: torch.dtype) -> Matrix:
        """[gates × hidden, inputs] as products.h reads it."""
        matrix = Matrix(precision=PRECISIONS.index(dtype), inputs=weight.shape[1])
        if dtype == torch.int8:
            weight, scales = quantise(weight)
            matrix.scales = self._hold(_by_block(scales[None] / _MOST, lanes))
            matrix.offsets = self._hold(_by_block(-128.0 * weight.sum(1)[None], lanes).to(torch.int32))
        matrix.weights = self._hold(_in_tiles(weight, lanes, self._kernel.item_dtype(dtype)))
        return matrix


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [columns, inputs] as whole numbers from -127 to 127, and the scale of each column, to multiply them by:
    the largest becomes 127, a column of zeros stays one."""
    scales = weight.abs().amax(1) / _MOST
    return (weight / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round(), scales


def _table_dtype(dtype: torch.dtype) -> torch.dtype:
    """What products that are looked up are kept in."""
    return torch.float32 if dtype == torch.float32 else torch.bfloat16


def _padded(count: int, together: int) -> int:
    """A number of things, the last group filled up."""
    return -(-count // together) * together


def _by_block(products: Tensor, lanes: int) -> Tensor:
    """[n, gates × hidden] → [n, blocks, gates, lanes], units beyond `hidden` zero."""
    count, hidden = len(products), products.shape[1] // _GATES
    filled = products.new_zeros(count, _GATES, _padded(hidden, lanes))
    filled[:, :, :hidden] = products.view(count, _GATES, hidden)
    return filled.view(count, _GATES, -1, lanes).transpose(1, 2).contiguous()


def _in_tiles(weight: Tensor, lanes: int, dtype: torch.dtype) -> Tensor:
    """[gates × hidden, inputs] → [blocks, words, gates, lanes, inputs of a word of four bytes]."""
    tiles = _by_block(weight.T.contiguous(), lanes).transpose(0, 1)
    blocks, inputs = tiles.shape[:2]
    together = 4 // dtype.itemsize
    filled = tiles.new_zeros(blocks, _padded(inputs, together), _GATES, lanes)
    filled[:, :inputs] = tiles
    return filled.view(blocks, -1, together, _GATES, lanes).permute(0, 1, 3, 4, 2).to(dtype).contiguous()
