"""The use cases behind every door: sentiment, tag, forecast, sessions, and the list of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from conveyor.domain import Forecast, ModelKey, Sentiment, Series, Tagging
from conveyor.errors import ConveyorError, InvalidArgument
from conveyor.gateway.admission import Admission
from conveyor.gateway.answering import Answering
from conveyor.gateway.call import Call
from conveyor.gateway.catalogue import Catalogue, ModelDescription
from conveyor.gateway.checks import check_items
from conveyor.gateway.codecs import Codec, ForecastCodec, SentimentCodec, TagCodec
from conveyor.gateway.limits import Limits
from conveyor.gateway.question import Question
from conveyor.gateway.reception import Reception
from conveyor.gateway.session_rows import SessionRowsDispatcher
from conveyor.gateway.sessions import Sessions
from conveyor.gateway.translation import ForecastItems, Items, SentimentItems, TagItems
from conveyor.lifecycle.phase import Lifecycle
from conveyor.telemetry.metrics import Metrics

__all__ = ["Gateway"]

CodecT = TypeVar("CodecT", bound=Codec)
ResultT = TypeVar("ResultT")


class Gateway:
    """What the server does for its callers, in the terms of `domain`, whatever the protocol. Event loop only.

    Every method may raise any request error of `errors`; `field` is in JSON notation. A `Question` is to be answered or
    dropped.

    sessions: the use cases of streaming sessions.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        answering: Answering,
        dispatcher: SessionRowsDispatcher,
        admission: Admission,
        lifecycle: Lifecycle,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._catalogue = catalogue
        self._answering = answering
        self._limits = limits
        self._reception = Reception(lifecycle, admission, metrics, limits.request_timeout_s)
        self.sessions = Sessions(catalogue, dispatcher, self._reception, limits)

    def gather(self, read: Callable[[], None]) -> None:
        """Calls `read` once, when requests that have come by then should be read and asked: soon, or together with
        others while the engine is busy. For requests of which the event loop is told one by one. Must not raise."""
        self._answering.dispatcher.gather(read)

    def sentiment(
        self, call: Call, inputs: Sequence[str], model: str | None, version: str | None
    ) -> Question[Sentiment]:
        """Classifies texts."""
        key, codec = self._resolve(call, SentimentCodec, model, version)
        check_items(len(inputs), SentimentItems.field, self._limits)
        return self._accept(call, key, SentimentItems(codec, inputs, self._limits))

    def tag(
        self,
        call: Call,
        inputs: Sequence[str] | None,
        tokens: Sequence[Sequence[str]] | None,
        model: str | None,
        version: str | None,
    ) -> Question[Tagging]:
        """Tags texts, or tokens that the caller already has; exactly one of `inputs` and `tokens` is given."""
        key, codec = self._resolve(call, TagCodec, model, version)
        if (inputs is None) == (tokens is None):
            raise InvalidArgument("give either inputs or tokens", field="inputs")
        items: Sequence[str | Sequence[str]] = inputs if inputs is not None else tokens or ()
        check_items(len(items), TagItems.field, self._limits)
        return self._accept(call, key, TagItems(codec, items, self._limits))

    def forecast(
        self,
        call: Call,
        series: Sequence[Series],
        horizon: int | None,
        quantiles: Sequence[float] | None,
        model: str | None,
        version: str | None,
    ) -> Question[Forecast]:
        """Forecasts series; None takes the model's default horizon and its trained quantile levels."""
        key, codec = self._resolve(call, ForecastCodec, model, version)
        check_items(len(series), ForecastItems.field, self._limits)
        return self._accept(call, key, ForecastItems(codec, series, horizon, quantiles, self._limits))

    def models(self) -> Sequence[ModelDescription]:
        """Every model, by name."""
        return self._catalogue.describe()

    def model(self, name: str) -> ModelDescription:
        """One model.

        Raises:
            NotFound: There is no such model.
        """
        return self._catalogue.describe_one(name)

    def _resolve(
        self, call: Call, codec_type: type[CodecT], model: str | None, version: str | None
    ) -> tuple[ModelKey, CodecT]:
        """The model that answers, if the server takes requests at all."""
        try:
            self._reception.check_open()
            key, codec = self._catalogue.resolve(call.task, codec_type, model, version)
        except ConveyorError as error:
            self._reception.count(call, error)
            raise
        call.model, call.version = key.name, key.version
        return key, codec

    def _accept(self, call: Call, key: ModelKey, items: Items[ResultT]) -> Question[ResultT]:
        """Refuses what can't be served in time before any work is done for it; holds room for the rest."""
        room = self._reception.accept(call, key, items.count, items.size)
        return Question(self._answering, call, key, items, room)
