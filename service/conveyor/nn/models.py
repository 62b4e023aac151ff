"""The networks of the three tasks, built from a package's description.

A network's `state_dict` names are the tensor names of a package's `weights.safetensors`. Nothing here moves a tensor
between devices; a batch and its network must be on the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conveyor.nn.crf import LinearChainCRF
from conveyor.nn.recurrent import RecurrentStack, Stair
from conveyor.spec import ForecastSpec, PackageSpec, RecurrentSpec, SentimentSpec, TagSpec, TextSpec

__all__ = ["SequenceClassifier", "SequenceTagger", "SeriesForecaster", "TaskModel", "build"]

# Rows of a matrix product at least; with fewer the CPU takes a kernel that rounds differently (see nn/recurrent.py).
_FEWEST_ROWS = 4


class _Embeddings(nn.ModuleDict):
    """One table per column, `<column>.weight`; a token's embeddings are concatenated. Id 0 embeds to zeros."""

    def __init__(self, text: TextSpec) -> None:
        super().__init__({column.name: nn.Embedding(column.size, column.dim, padding_idx=0) for column in text.columns})
        self.width = sum(column.dim for column in text.columns)
        for table in self.values():
            assert isinstance(table, nn.Embedding)
            bound = (3 / table.embedding_dim) ** 0.5  # Ma & Hovy 2016, section 3.1
            with torch.no_grad():
                nn.init.uniform_(table.weight, -bound, bound)[0].zero_()

    def forward(self, ids: Tensor) -> Tensor:
        """int32 [rows, steps, columns] → float32 [rows, steps, width]."""
        return torch.cat([table(ids[..., column]) for column, table in enumerate(self.values())], dim=-1)


class _Head(nn.Linear):
    """A linear layer whose rows do not depend on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        filler = max(0, _FEWEST_ROWS - rows.shape[0])
        outputs = super().forward(F.pad(rows, (0, 0, 0, filler)))
        return outputs[: rows.shape[0]].reshape(*x.shape[:-1], self.out_features)


class _TextModel(nn.Module):
    """ids → embeddings → recurrent layers. Dropout falls on the embeddings, between layers, and before the head."""

    def __init__(self, text: TextSpec, recurrent: RecurrentSpec, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.embeddings = _Embeddings(text)
        self.recurrent = RecurrentStack(self.embeddings.width, recurrent, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = _Head(self.recurrent.output_size, num_outputs)

    def embed(self, inputs: Tensor) -> Tensor:
        """int32 [rows, steps, columns] → float32 [rows, steps, width], or the ids as they are if embeddings are left
        out: what the first recurrent layer takes."""
        if not self.embeddings:
            return inputs
        embedded: Tensor = self.dropout(self.embeddings(inputs))
        return embedded

    def leave_out_embeddings(self) -> None:
        """Gives layer one the ids from now on, which its kernel takes; the embeddings are gone."""
        self.embeddings.clear()

    def _encode(self, ids: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> Tensor:
        return self.recurrent.outputs(self.embed(ids), lengths, stairs)


class SequenceClassifier(_TextModel):
    """sequence → class: one vector for a row, pooled from its steps, scores the labels.

    `last` pools the final state of each direction, `mean` and `max` the last layer's outputs over the row's own steps.
    A row without steps pools to zeros.
    """

    stepwise: ClassVar[bool] = False

    def __init__(self, spec: SentimentSpec, dropout: float = 0.0) -> None:
        super().__init__(spec.text, spec.recurrent, len(spec.labels), dropout)
        self.spec = spec
        self._reader: Callable[[Tensor], dict[str, Tensor]] | None = None

    def read_out_by(self, reader: Callable[[Tensor], dict[str, Tensor]]) -> None:
        """Makes labels of what was pooled, float32 [rows, width], by something else from now on; for inference only.
        The network pools by `max`, and its recurrent layers are `ragged`."""
        self._reader = reader

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids: int32 [rows, steps, columns]; lengths: int64 [rows] → logits: float32 [rows, labels]."""
        return self._score(self._encode(ids, lengths), lengths)

    def _score(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self._pool(outputs, lengths)))
        return logits

    def predict(self, inputs: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> dict[str, Tensor]:
        """`probabilities`: float32 [rows, labels]. Arguments as in `forward` and `RecurrentStack.forward`."""
        if self._reader is not None:
            return self._reader(self.recurrent.highest(self.embed(inputs), lengths))
        return self.read_out(self._encode(inputs, lengths, stairs), lengths)

    def read_out(self, outputs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """`predict` from what the recurrent layers put out."""
        if self._reader is not None:
            return self._reader(self._pool(outputs, lengths))
        return {"probabilities": torch.softmax(self._score(outputs, lengths), dim=-1)}

    def _pool(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        rows, steps, width = outputs.shape
        if self.spec.pooling == "last":
            return self.recurrent.final(outputs, lengths)
        if steps == 0:
            return outputs.new_zeros(rows, width)
        inside = (torch.arange(steps, device=lengths.device) < lengths[:, None])[..., None]
        if self.spec.pooling == "max":
            # Added, which is faster than filling in: nothing that is finite is above it.
            highest = (outputs + torch.where(inside, 0.0, -torch.inf)).amax(dim=1)
            return torch.where(lengths[:, None] > 0, highest, 0.0)
        # how a sum is split depends on the padding; in float64 that difference is gone after rounding
        total = outputs.masked_fill(~inside, 0.0).sum(dim=1, dtype=torch.float64)
        return (total / lengths[:, None].clamp(min=1)).to(outputs.dtype)


class SequenceTagger(_TextModel):
    """sequence → tag per step: each step's output scores the tags; a CRF, if there is one, scores whole paths."""

    stepwise: ClassVar[bool] = True

    def __init__(self, spec: TagSpec, dropout: float = 0.0) -> None:
        super().__init__(spec.text, spec.recurrent, len(spec.labels), dropout)
        self.spec = spec
        self.crf = LinearChainCRF(len(spec.labels)) if spec.crf else None

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """ids: int32 [rows, steps, columns]; lengths: int64 [rows] → emissions: float32 [rows, steps, labels]."""
        emissions: Tensor = self.head(self.dropout(self._encode(ids, lengths)))
        return emissions

    def predict(self, inputs: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> dict[str, Tensor]:
        """`tags`: int32 [rows, steps]; `scores`: float32 [rows, steps], the probability of each tag at its step.

        With a CRF the tags are the most probable path and the scores its marginals, without one the most probable tag
        of each step and its softmax. Both mean nothing past a row's length. Arguments as in `forward` and
        `RecurrentStack.forward`.
        """
        return self.read_out(self._encode(inputs, lengths, stairs), lengths)

    def read_out(self, outputs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """`predict` from what the recurrent layers put out."""
        emissions: Tensor = self.head(outputs)
        if self.crf is None:
            scores, tags = torch.softmax(emissions, dim=-1).max(dim=-1)
        elif len(emissions) == 1 and int(lengths[0]) == emissions.shape[1] > 0:
            # A whole row by itself is a long one: its steps, not the rows, are what can be run side by side.
            tags, scores = (part[None] for part in self.crf.decode_long(emissions[0]))
        else:
            tags, scores = self.crf.decode(emissions, lengths)
        return {"tags": tags.to(torch.int32), "scores": scores}

    def probabilities(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """The probability of every tag at every step: float32 [rows, steps, labels], with a CRF its marginals.

        Takes one step at least; means nothing past a row's length.
        """
        emissions: Tensor = self.head(self._encode(inputs, lengths))
        return torch.softmax(emissions, dim=-1) if self.crf is None else self.crf.marginals(emissions, lengths)


class SeriesForecaster(nn.Module):
    """series → forecast: the state after a step gives every horizon at once, a mean and quantiles for each target."""

    stepwise: ClassVar[bool] = False

    def __init__(self, spec: ForecastSpec, dropout: float = 0.0) -> None:
        super().__init__()
        self.spec = spec
        self._shape = (spec.horizon, len(spec.series.targets), 1 + len(spec.quantiles))
        self.recurrent = RecurrentStack(spec.series.width, spec.recurrent, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = _Head(self.recurrent.output_size, self._shape[0] * self._shape[1] * self._shape[2])

    def forward_steps(self, x: Tensor, lengths: Tensor, steps: Tensor) -> Tensor:
        """Forecasts from several steps of each row, as training needs them.

        Args:
            x: float32 [rows, steps, width].
            lengths: int64 [rows].
            steps: int64 [origins], the steps to forecast from, the same for each row and within its length.

        Returns:
            float32 [rows, origins, horizon, targets, 1 + quantiles], as `predict` gives for a row that ends there.
        """
        return self.forecast_from(self.recurrent.outputs(x, lengths)[:, steps])

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 [rows, steps, width], as it is: what the first recurrent layer takes."""
        return inputs

    def predict(self, inputs: Tensor, lengths: Tensor, stairs: Sequence[Stair] | None = None) -> dict[str, Tensor]:
        """`forecast`: float32 [rows, horizon, targets, 1 + quantiles], the mean first, then the levels ascending as in
        the description; standardised. inputs: float32 [rows, steps, width]; lengths: int64 [rows]."""
        return self.read_out(self.recurrent.outputs(inputs, lengths, stairs), lengths)

    def read_out(self, outputs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """`predict` from what the recurrent layer puts out."""
        return {"forecast": self.forecast_from(self.recurrent.final(outputs, lengths))}

    def forecast_from(self, states: Tensor) -> Tensor:
        """What is forecast from the last layer's h after some step: float32 [..., hidden] → [..., horizon, targets,
        1 + quantiles]."""
        outputs: Tensor = self.head(self.dropout(states))
        return outputs.reshape(*states.shape[:-1], *self._shape)


TaskModel = SequenceClassifier | SequenceTagger | SeriesForecaster


def build(spec: PackageSpec, dropout: float = 0.0) -> TaskModel:
    """The network a package describes, with new random weights from torch's generator.

    Under `torch.device("meta")` it takes no memory, and its `state_dict` tells the names and shapes of the tensors.

    Args:
        spec: The package's description.
        dropout: Probability with which a unit is dropped; acts in training mode only.
    """
    if isinstance(spec, SentimentSpec):
        return SequenceClassifier(spec, dropout)
    if isinstance(spec, TagSpec):
        return SequenceTagger(spec, dropout)
    return SeriesForecaster(spec, dropout)
