"""Training that begins from the weights of another package instead of random ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from conveyor.errors import InvalidArgument
from conveyor.features.vocabulary import UNKNOWN, Vocabulary
from conveyor.nn.models import TaskModel
from conveyor.repository.package import read_package
from conveyor.repository.weights import read_tensors
from conveyor.spec import SentimentSpec, TagSpec

__all__ = ["Start"]


class Start:
    """The embeddings and recurrent layers of a package.

    Args:
        directory: Of the package, `<name>/<version>`.

    Raises:
        InvalidArgument: It has no text, or cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        package = read_package(directory)
        if not isinstance(package.spec, SentimentSpec | TagSpec):
            raise InvalidArgument(f"{directory} has no embeddings to start from")
        self._tensors = read_tensors(package.weights)
        self._vocabulary = Vocabulary.load(directory, package.spec.text.columns)

    def entries(self, column: str) -> Mapping[str, int]:
        """The entries of a column that are embedded, with their ids."""
        return self._vocabulary.ids(column)

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """One of its tensors."""
        return self._tensors[name]

    def apply(self, model: TaskModel, vocabulary: Vocabulary) -> None:
        """Copies what fits: the rows of equal entries in columns of the same name and width, and every recurrent
        weight of the same shape."""
        with torch.no_grad():
            for name, target in model.state_dict().items():
                source = self._tensors.get(name)
                if source is None:
                    continue
                learned = torch.from_numpy(source)
                if name.startswith("recurrent.") and learned.shape == target.shape:
                    target.copy_(learned)
                elif name.startswith("embeddings.") and learned.shape[1:] == target.shape[1:]:
                    column = name.removeprefix("embeddings.").removesuffix(".weight")
                    known = self.entries(column)
                    target[UNKNOWN] = learned[UNKNOWN]
                    for entry, index in vocabulary.ids(column).items():
                        if entry in known:
                            target[index] = learned[known[entry]]
