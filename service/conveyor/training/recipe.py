"""The schema of a recipe: which data, which network, which training. Unknown keys are refused.

A recipe determines a package completely: with the same data files (their SHA-256 is part of it), the same seed, one
thread and the same versions of the libraries, training twice gives the same weights.
"""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from conveyor.errors import InvalidArgument
from conveyor.spec import NAME_PATTERN, Calendar, RecurrentSpec

__all__ = [
    "ColumnRecipe",
    "DataFile",
    "ForecastRecipe",
    "ForecastTraining",
    "Format",
    "Recipe",
    "SentimentRecipe",
    "SentimentTraining",
    "SeriesRecipe",
    "TagRecipe",
    "TagTraining",
    "Teaching",
    "TextRecipe",
    "Training",
    "load_recipe",
]

Format = Literal[
    "lines",
    "labelled-lines",
    "imdb",
    "labelled-csv",
    "labelled-tsv",
    "conllu",
    "iob2",
    "characters",
    "peoples-daily",
    "cluener",
    "series-csv",
    "series-rows",
    "series-bare",
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataFile(_Table):
    """One file of one public data set, and what part of it serves for what."""

    name: str = Field(description="public name of the data set")
    source: str = Field(description="who published it")
    license: str
    split: str = Field(description="the publisher's name of the part, and what is left out of it")
    part: Literal["train", "dev", "text"] = Field(description="`text` is unlabelled, for what is learned before labels")
    file: str = Field(description="path below the data folder")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file as stored, compressed or not")
    format: Format
    labels: dict[str, str] = Field(default={}, description="the file's labels renamed; those not named stay")
    shares: dict[str, float] = Field(
        default={}, description="labels of the file that stand for this probability of the package's last label"
    )
    groups: tuple[str, ...] = Field(default=(), description="keep only examples of these groups of the file")
    fold: tuple[int, int] | None = Field(
        default=None, description="[i, n]: every n-th example from number i on is the development part, the rest trains"
    )
    times: int = Field(default=1, ge=1, description="how often an epoch reads the examples")
    columns: tuple[str, ...] = Field(default=(), description="columns of a series file, renamed to the features")
    since: datetime | None = Field(default=None, description="first time of a series that belongs to the part")
    until: datetime | None = Field(default=None, description="first time of a series that no longer does")


class ColumnRecipe(_Table):
    """A column of `model.toml`, with the rule for its vocabulary in place of its size.

    What `begins` and `ends` look up are the words of the training data, where words are learned.
    """

    kind: Literal["token", "lower", "prefix", "suffix", "shape", "bigram", "trigram", "begins", "ends"]
    length: int | None = None
    dim: int
    min_count: int = Field(default=1, ge=1, description="entries seen less often in training are unknown")
    max_size: int = Field(default=2_000_000, ge=3, description="most ids, the two reserved ones included")
    vectors: Literal["random", "cooccurrence"] = Field(
        default="random", description="where training begins: anywhere, or at what stands near what in all texts"
    )


class TextRecipe(_Table):
    tokenizer: Literal["word", "character"]
    columns: tuple[ColumnRecipe, ...] = Field(min_length=1)


class SeriesRecipe(_Table):
    features: tuple[str, ...]
    targets: tuple[str, ...]
    frequency: str
    calendar: tuple[Calendar, ...] = ()
    half_life_steps: float


class Training(_Table):
    """What every task's training has in common."""

    seed: int = Field(default=1, ge=0)
    epochs: int = Field(ge=1)
    stop_after: int | None = Field(
        default=None, ge=1, description="epochs after which training ends although the schedule would go on"
    )
    patience: int = Field(ge=1, description="epochs without a better development score before training stops")
    optimizer: Literal["adam", "adamw"] = "adamw"
    fused: bool = Field(
        default=False, description="update all weights in one go: faster where the vocabulary is large, other last bits"
    )
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float = Field(gt=0, description="largest norm of the gradient of all weights")
    averaging: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the running average of the weights, which is then what is kept"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the products while training; weights and scores are float32 all the same"
    )
    stored: Literal["float32", "float16"] = "float32"
    calibrate: bool = Field(
        default=False, description="fit the head's temperature, or its intervals, to the development part at the end"
    )


class Teaching(_Table):
    """Networks that learn first, without the long texts, and then label sentences of all texts for the one to come."""

    teachers: int = Field(ge=1, description="how many, with the seeds after the recipe's own")
    epochs: int = Field(ge=1, description="of each teacher; the rest of its training is as the recipe says")
    longest: int = Field(ge=1, description="steps of the longest text that the teachers learn from")
    sentences: int = Field(ge=1, description="most sentences that they label")
    sharpness: float = Field(default=1.0, gt=0, description="factor of their mean log odds")
    leaning: float = Field(
        default=0.0, ge=0, description="log odds that a sentence of a labelled text gets on top, towards that label"
    )


class SentimentTraining(Training):
    padded_steps: int = Field(ge=1, description="most steps of a batch, padding included")
    rows: int = Field(ge=1, description="most rows of a batch")
    max_steps: int = Field(ge=1, description="longer texts lose their middle in training; they are scored whole")
    word_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of ids made unknown in training")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    short_repeats: bool = Field(
        default=True, description="learn texts of a few letters although the development part holds them too"
    )
    teaching: Teaching | None = None


class TagTraining(Training):
    padded_steps: int = Field(ge=1, description="most steps of a batch, padding included")
    rows: int = Field(ge=1, description="most rows of a batch")
    max_steps: int = Field(ge=1, description="longer texts are cut into pieces for training; they are scored whole")
    word_dropout: float = Field(default=0.0, ge=0, lt=1, description="share of ids made unknown in training")
    identity_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of tokens whose first column alone is made unknown in training: known by looks, as new "
        "words are",
    )
    substitution: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of words replaced in each epoch by another word of the same tag; those tagged O never are",
    )
    list_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the rare words that `begins` and `ends` columns do not know in training, drawn for each "
        "epoch: new words are learned from them",
    )
    balance: bool = Field(
        default=False,
        description="with `calibrate`, move the score of O to where F1 on the development part is best: rare entities "
        "are else given up too easily",
    )
    auxiliary: float = Field(
        default=0.0,
        ge=0,
        description="weight of a second loss, on the tags of the data's words, where words are learned",
    )


class ForecastTraining(Training):
    channels: Literal["joint", "shared"] = Field(
        default="joint",
        description="one network reads all features, or each is learned as a series of its own by the same weights",
    )
    weighting: Literal["origin", "series"] = Field(
        default="origin", description="whose deviation an error is counted in: that of its origin, or of the series"
    )
    smooth: float = Field(
        default=0.2, gt=0, description="deviations within which the mean's loss is quadratic: large for least squares"
    )
    teacher: float = Field(
        default=0.0, ge=0, le=1, description="share of the mean's loss that is its distance to a linear forecast"
    )
    near: float = Field(
        default=0.0, ge=0, description="power by which a step's error counts less the further ahead it is; 0: all alike"
    )
    score: Literal["mae_ratio", "mse"] = Field(
        default="mae_ratio", description="what chooses: error beside the seasonal naive one, or standardised square"
    )
    measured_horizons: tuple[int, ...] = Field(
        default=(), description="horizons whose squared error, standardised by the training part, is measured too"
    )
    rows: int = Field(ge=1, description="windows of a batch")
    batches: int = Field(ge=1, description="batches of an epoch")
    window_steps: int = Field(ge=2, description="steps of a window; its forecasts look beyond it")
    warm_steps: int = Field(ge=0, description="steps at the start of a window that carry no loss")
    origins: int = Field(ge=1, description="steps of a window from which a forecast is learned, drawn anew each time")
    calendar_dropout: float = Field(default=0.0, ge=0, le=1, description="share of windows whose start is hidden")
    missing: float = Field(default=0.0, ge=0, lt=1, description="largest share of a window's values hidden in training")
    mixing: float = Field(
        default=0.0, ge=0, le=1, description="share of windows to which a part of another window, in season, is added"
    )
    dev_stride: int = Field(ge=1, description="steps between two origins of the development score")
    season_steps: int = Field(ge=1, description="period of the seasonal-naive reference")


class _Package(_Table):
    name: str = Field(pattern=f"^{NAME_PATTERN.pattern}$")
    description: str
    license: str
    limits: tuple[str, ...] = Field(min_length=1, description="what the model is not good at, one sentence each")
    tolerance: float = 1e-4
    recurrent: RecurrentSpec
    data: tuple[DataFile, ...] = Field(min_length=2)


class SentimentRecipe(_Package):
    task: Literal["sentiment"]
    labels: tuple[str, ...]
    pooling: Literal["last", "mean", "max"]
    text: TextRecipe
    training: SentimentTraining


class TagRecipe(_Package):
    """Tags are those of the training data: its own for token files, those of `scheme` where spans are learned."""

    task: Literal["tag"]
    scheme: Literal["plain", "bio", "bmes"]
    learns: Literal["tags", "words"] = Field(description="the tags of the data's tokens, or where its tokens end")
    crf: bool = False
    start: str | None = Field(
        default=None, description="package, `name/version`, from whose embeddings and recurrent layers training begins"
    )
    text: TextRecipe
    training: TagTraining


class ForecastRecipe(_Package):
    task: Literal["forecast"]
    series: SeriesRecipe
    horizon: int
    default_horizon: int
    quantiles: tuple[float, ...]
    history: int
    training: ForecastTraining


Recipe = SentimentRecipe | TagRecipe | ForecastRecipe

_adapter: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="task")])


def load_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        InvalidArgument: The file is missing, not TOML, or not of the schema; every problem is named.
    """
    try:
        return _adapter.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise InvalidArgument(f"there is no recipe {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path.name} is not TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        raise InvalidArgument(f"{path.name}: {problems}") from error
