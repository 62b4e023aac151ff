"""A tagger that learns a second tagging beside its own and is shipped without it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conveyor.nn.models import SequenceTagger
from conveyor.spec import TagSpec

__all__ = ["AuxiliaryTagger", "plain_tagger"]


class AuxiliaryTagger(SequenceTagger):
    """A tagger with a second head on the same recurrent layers, which so learn what both need.

    Args:
        num_auxiliary: Tags of the second head.
    """

    def __init__(self, spec: TagSpec, num_auxiliary: int, dropout: float = 0.0) -> None:
        super().__init__(spec, dropout)
        self.auxiliary = nn.Linear(self.recurrent.output_size, num_auxiliary)

    def both(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Emissions as `forward` gives them, and the second head's scores: float32 [rows, steps, num_auxiliary]."""
        outputs = self.dropout(self._encode(ids, lengths))
        return self.head(outputs), self.auxiliary(outputs)


def plain_tagger(learner: SequenceTagger) -> SequenceTagger:
    """The tagger without its second head."""
    plain = SequenceTagger(learner.spec)
    kept = plain.state_dict().keys()
    with torch.no_grad():
        plain.load_state_dict({name: tensor for name, tensor in learner.state_dict().items() if name in kept})
    return plain.eval()
