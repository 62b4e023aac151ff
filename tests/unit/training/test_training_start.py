"""Where training can begin: at another package, at what stands near what, with a second task beside the first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conveyor.errors import InvalidArgument
from conveyor.features.vocabulary import Vocabulary
from conveyor.nn.models import SequenceTagger
from conveyor.spec import ColumnSpec, RecurrentSpec, TagSpec, TextSpec
from conveyor.training.auxiliary import AuxiliaryTagger, plain_tagger
from conveyor.training.start import Start
from conveyor.training.vectors import cooccurrence_vectors
from support.packages import write_tiny_models


def tagger(hidden: int = 2) -> TagSpec:
    return TagSpec(
        format_version=1,
        name="tiny",
        description="A tiny model.",
        license="CC0-1.0",
        recurrent=RecurrentSpec(hidden=hidden),
        task="tag",
        scheme="plain",
        labels=("A", "B"),
        text=TextSpec(tokenizer="word", columns=(ColumnSpec(kind="token", size=9, dim=3),)),
    )


def test_words_in_the_same_company_are_near_each_other() -> None:
    """Two ids that change places in the same sentences, against one that stands elsewhere."""
    rng = np.random.default_rng(0)
    sentences = [[2, rng.choice([3, 4]), 5, 6] for _ in range(200)] + [[7, 8, 9, 7] for _ in range(200)]
    rows = [np.array(sentence, np.int32) for sentence in sentences]
    vectors = cooccurrence_vectors(rows, size=11, dim=4, seed=1)

    def likeness(a: int, b: int) -> float:
        return float(vectors[a] @ vectors[b] / (np.linalg.norm(vectors[a]) * np.linalg.norm(vectors[b])))

    assert likeness(3, 4) > 0.9
    assert likeness(3, 8) < 0.5
    assert not vectors[[0, 1, 10]].any()
    assert np.array_equal(vectors, cooccurrence_vectors(rows, size=11, dim=4, seed=1))


def test_no_text_at_all_gives_zeros() -> None:
    """Nothing seen is nothing known, and no division by it."""
    assert not cooccurrence_vectors([], size=5, dim=3, seed=1).any()


def test_training_begins_with_what_fits_of_a_package(tmp_path: Path) -> None:
    """Embeddings go by their entry, not their number; a layer of another size stays as it was drawn."""
    models = write_tiny_models(tmp_path)
    package = next(path for path in sorted(models.glob("*/*")) if (path / "vocab.txt").exists())
    start = Start(package)
    column, entries = next((name, start.entries(name)) for name in ("lower", "token") if start.entries(name))
    word = list(entries)[-1]
    stored = torch.from_numpy(start.tensor(f"embeddings.{column}.weight"))
    spec = tagger()
    kind = ColumnSpec(kind=column, size=4, dim=stored.shape[1])
    model = SequenceTagger(spec.model_copy(update={"text": TextSpec(tokenizer="word", columns=(kind,))}))
    drawn = model.recurrent.layers[0]["forwards"].weight_hh_l0.clone()
    own = model.embeddings[column].weight[2].clone()

    start.apply(model, Vocabulary({column: ["never-seen", word]}))

    assert torch.equal(stored[entries[word]], model.embeddings[column].weight[3])
    assert torch.equal(own, model.embeddings[column].weight[2])
    assert torch.equal(drawn, model.recurrent.layers[0]["forwards"].weight_hh_l0)


def test_a_package_without_text_is_nothing_to_start_from(tmp_path: Path) -> None:
    """A forecaster has no words."""
    models = write_tiny_models(tmp_path)
    package = next(path for path in sorted(models.glob("*/*")) if not (path / "vocab.txt").exists())
    with pytest.raises(InvalidArgument, match="no embeddings"):
        Start(package)


def test_a_tagger_is_shipped_without_its_second_head() -> None:
    """The first head answers as before."""
    torch.manual_seed(0)
    learner = AuxiliaryTagger(tagger(), num_auxiliary=5).eval()
    ids, lengths = torch.tensor([[[2], [3]]], dtype=torch.int32), torch.tensor([2])
    emissions, second = learner.both(ids, lengths)
    plain = plain_tagger(learner)
    assert (1, 2, 5) == tuple(second.shape)
    assert torch.equal(emissions, plain(ids, lengths))
    assert not any("auxiliary" in name for name in plain.state_dict())
