"""The layers of a network through the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from conveyor.engine.executors.kernel.library import Direction, Kernel
from conveyor.nn.models import SeriesForecaster, TaskModel
from conveyor.nn.recurrent import RaggedLayer, State

__all__ = ["KernelLayer", "install_kernel"]

_GATES = 4
# What the tables of a model's first layer may take; beyond it the products are computed from the embeddings.
_TABLE_BYTES = 128 * 2**20


def install_kernel(model: TaskModel, kernel: Kernel, dtype: torch.dtype) -> None:
    """Makes the layers of a network compute by the kernel.

    What layer one gets from its input depends on the ids of a step alone. So for text, where there is room, it is
    looked up: embeddings × input weights, computed here once for every id.

    Args:
        model: In float32 on the CPU.
        kernel: What computes.
        dtype: `torch.float32`, or `torch.bfloat16`: weights, tables, and what is multiplied by weights. Sums, gates
            and the cells' states stay float32.
    """
    tables: Sequence[Tensor] = []
    if not isinstance(model, SeriesForecaster):
        tables = list(model.embeddings.parameters())
    first = list(model.recurrent.layers[0].children())
    line_bytes = _GATES * _padded(model.recurrent.spec.hidden, kernel.lanes) * dtype.itemsize
    if sum(map(len, tables)) * len(first) * line_bytes > _TABLE_BYTES:
        tables = []

    def make(module: nn.RNNBase) -> RaggedLayer:
        return KernelLayer(module, kernel, dtype, tables if module in first else [])

    model.recurrent.use(make, fewest_rows=1)
    if tables and not isinstance(model, SeriesForecaster):
        model.leave_out_embeddings()


class KernelLayer(RaggedLayer):
    """One direction of one LSTM layer.

    Args:
        module: The layer in float32 on the CPU, whose weights are copied.
        kernel: What computes.
        dtype: As for `install_kernel`.
        embeddings: [ids, width] of each column, if the layer is to take ids instead of their embeddings.
    """

    def __init__(
        self, module: nn.RNNBase, kernel: Kernel, dtype: torch.dtype, embeddings: Sequence[Tensor] = ()
    ) -> None:
        super().__init__()
        self._kernel = kernel
        self._dtype = torch.int32 if embeddings else torch.float32
        self._hidden = module.hidden_size
        weight_ih, weight_hh, bias_ih, bias_hh = (parameter.detach() for parameter in module.parameters())
        lanes = kernel.lanes
        bias = bias_ih + bias_hh
        # The library reads them where they lie; so they are kept.
        self._held = [_in_tiles(weight_hh, lanes, dtype)]
        if embeddings:
            first = 0
            for table in embeddings:
                width = table.shape[1]
                # The biases come with the first column.
                products = table @ weight_ih[:, first : first + width].T + (bias if first == 0 else 0.0)
                self._held.append(_by_block(products, lanes).to(dtype))
                first += width
        else:
            self._held += [_in_tiles(weight_ih, lanes, dtype), _by_block(bias[None], lanes)]
        places = [held.data_ptr() for held in self._held]
        self.num_bytes = sum(held.nbytes for held in self._held)
        self._direction = Direction(
            hidden=self._hidden,
            blocks=_padded(self._hidden, lanes) // lanes,
            width=len(embeddings) or module.input_size,
            reduced=dtype == torch.bfloat16,
            recurrent=places[0],
        )
        if embeddings:
            self._direction.tables = (ctypes.c_void_p * len(embeddings))(*places[1:])
            self._direction.half_tables = dtype == torch.bfloat16
        else:
            self._direction.input, self._direction.bias = places[1:]

    def run(self, x: Tensor, lengths: Tensor, outputs: Tensor, *, backwards: bool) -> None:
        """Runs rows of any lengths from their beginnings, or their ends, on."""
        x = x.to(self._dtype).contiguous()
        self._kernel.run(self._direction, x, lengths.contiguous(), outputs, backwards=backwards)

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


def _padded(hidden: int, lanes: int) -> int:
    """Units, the last block filled up."""
    return -(-hidden // lanes) * lanes


def _by_block(products: Tensor, lanes: int) -> Tensor:
    """[n, gates × hidden] → [n, blocks, gates, lanes], units beyond `hidden` zero."""
    count, hidden = len(products), products.shape[1] // _GATES
    filled = products.new_zeros(count, _GATES, _padded(hidden, lanes))
    filled[:, :, :hidden] = products.view(count, _GATES, hidden)
    return filled.view(count, _GATES, -1, lanes).transpose(1, 2).contiguous()


def _in_tiles(weight: Tensor, lanes: int, dtype: torch.dtype) -> Tensor:
    """[gates × hidden, inputs] → [blocks, inputs, gates, lanes], in bfloat16 [blocks, inputs / 2, gates, lanes, 2]."""
    tiles = _by_block(weight.T.contiguous(), lanes).transpose(0, 1)
    if dtype == torch.float32:
        return tiles.contiguous()
    blocks, inputs = tiles.shape[:2]
    paired = tiles.new_zeros(blocks, -(-inputs // 2) * 2, _GATES, lanes)
    paired[:, :inputs] = tiles
    return paired.view(blocks, -1, 2, _GATES, lanes).permute(0, 1, 3, 4, 2).to(dtype).contiguous()
