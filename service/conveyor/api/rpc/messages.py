"""Domain objects as messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from conveyor.api.rpc.proto.conveyor.v1 import conveyor_pb2 as pb
from conveyor.domain import Answer, Forecast, Sentiment, Series, Tagging
from conveyor.gateway.catalogue import ModelDescription
from conveyor.gateway.limits import Limits
from conveyor.gateway.series_input import series_from_flat

__all__ = [
    "forecast_response",
    "forecast_result",
    "list_models_response",
    "sentiment_response",
    "series_from_message",
    "tag_response",
]


def series_from_message(message: pb.Series, field: str, limits: Limits) -> Series:
    """Returns the series that stands in a request as `field`.

    Raises:
        InvalidArgument: There are too many values, they do not divide into steps, or `start` is not ISO-8601.
    """
    return series_from_flat(
        message.values,
        message.features,
        message.start,
        message.frequency,
        field,
        max_values=limits.series_values,
    )


def sentiment_response(answer: Answer[Sentiment]) -> pb.SentimentResponse:
    """Returns the message of an answer."""
    return pb.SentimentResponse(
        model=answer.model,
        version=answer.version,
        results=[
            pb.SentimentResult(label=result.label, score=result.score, scores=result.scores)
            for result in answer.results
        ],
    )


def tag_response(answer: Answer[Tagging]) -> pb.TagResponse:
    """Returns the message of an answer."""
    return pb.TagResponse(
        model=answer.model,
        version=answer.version,
        results=[
            pb.TagResult(
                tokens=[
                    pb.Token(text=token.text, start=token.start, end=token.end, tag=token.tag, score=token.score)
                    for token in result.tokens
                ],
                spans=[
                    pb.Span(text=span.text, start=span.start, end=span.end, label=span.label, score=span.score)
                    for span in result.spans
                ],
            )
            for result in answer.results
        ],
    )


def forecast_response(answer: Answer[Forecast]) -> pb.ForecastResponse:
    """Returns the message of an answer."""
    return pb.ForecastResponse(
        model=answer.model,
        version=answer.version,
        results=[forecast_result(result) for result in answer.results],
    )


def forecast_result(forecast: Forecast) -> pb.ForecastResult:
    """Returns the message of one forecast."""
    return pb.ForecastResult(
        mean=_values(forecast.mean, len(forecast.targets)),
        quantiles={level: _values(rows, len(forecast.targets)) for level, rows in forecast.quantiles.items()},
        targets=forecast.targets,
        timestamps=forecast.timestamps or (),
    )


def list_models_response(models: Sequence[ModelDescription]) -> pb.ListModelsResponse:
    """Returns the message of a list of models."""
    return pb.ListModelsResponse(models=[_model(model) for model in models])


def _values(rows: Sequence[Sequence[float]], targets: int) -> pb.ForecastValues:
    return pb.ForecastValues(values=chain.from_iterable(rows), steps=len(rows), targets=targets)


def _model(model: ModelDescription) -> pb.ModelDescription:
    # protobuf takes None as "not set", in optional fields and in lists alike.
    return pb.ModelDescription(
        name=model.name,
        task=model.task,
        version=model.version,
        versions=model.versions,
        state=model.state,
        default=model.default,
        description=model.description,
        reason=model.reason,
        labels=model.labels,
        features=model.features,
        targets=model.targets,
        frequency=model.frequency,
        history=model.history,
        max_horizon=model.max_horizon,
        streamable=model.streamable,
        plan=model.plan,
    )
