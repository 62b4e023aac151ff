from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SentimentRequest(_message.Message):
    __slots__ = ("inputs", "model", "version")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedScalarFieldContainer[str]
    model: str
    version: str
    def __init__(self, inputs: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class SentimentResponse(_message.Message):
    __slots__ = ("model", "version", "results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    results: _containers.RepeatedCompositeFieldContainer[SentimentResult]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., results: _Optional[_Iterable[_Union[SentimentResult, _Mapping]]] = ...) -> None: ...

class SentimentResult(_message.Message):
    __slots__ = ("label", "score", "scores")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    label: str
    score: float
    scores: _containers.ScalarMap[str, float]
    def __init__(self, label: _Optional[str] = ..., score: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ...) -> None: ...

class TagRequest(_message.Message):
    __slots__ = ("inputs", "tokens", "model", "version")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedScalarFieldContainer[str]
    tokens: _containers.RepeatedCompositeFieldContainer[TokenList]
    model: str
    version: str
    def __init__(self, inputs: _Optional[_Iterable[str]] = ..., tokens: _Optional[_Iterable[_Union[TokenList, _Mapping]]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class TokenList(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class TagResponse(_message.Message):
    __slots__ = ("model", "version", "results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    results: _containers.RepeatedCompositeFieldContainer[TagResult]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., results: _Optional[_Iterable[_Union[TagResult, _Mapping]]] = ...) -> None: ...

class TagResult(_message.Message):
    __slots__ = ("tokens", "spans")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[Token]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    def __init__(self, tokens: _Optional[_Iterable[_Union[Token, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("text", "start", "end", "tag", "score")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    text: str
    start: int
    end: int
    tag: str
    score: float
    def __init__(self, text: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., tag: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("text", "start", "end", "label", "score")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    text: str
    start: int
    end: int
    label: str
    score: float
    def __init__(self, text: _Optional[str] = ..., start: _Optional[int] = ..., end: _Optional[int] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class ForecastRequest(_message.Message):
    __slots__ = ("series", "horizon", "quantiles", "model", "version")
    SERIES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    series: _containers.RepeatedCompositeFieldContainer[Series]
    horizon: int
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    model: str
    version: str
    def __init__(self, series: _Optional[_Iterable[_Union[Series, _Mapping]]] = ..., horizon: _Optional[int] = ..., quantiles: _Optional[_Iterable[float]] = ..., model: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Series(_message.Message):
    __slots__ = ("values", "features", "start", "frequency")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    features: int
    start: str
    frequency: str
    def __init__(self, values: _Optional[_Iterable[float]] = ..., features: _Optional[int] = ..., start: _Optional[str] = ..., frequency: _Optional[str] = ...) -> None: ...

class ForecastResponse(_message.Message):
    __slots__ = ("model", "version", "results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    results: _containers.RepeatedCompositeFieldContainer[ForecastResult]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ForecastResult, _Mapping]]] = ...) -> None: ...

class ForecastResult(_message.Message):
    __slots__ = ("mean", "quantiles", "targets", "timestamps")
    class QuantilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ForecastValues
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ForecastValues, _Mapping]] = ...) -> None: ...
    MEAN_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    mean: ForecastValues
    quantiles: _containers.MessageMap[str, ForecastValues]
    targets: _containers.RepeatedScalarFieldContainer[str]
    timestamps: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mean: _Optional[_Union[ForecastValues, _Mapping]] = ..., quantiles: _Optional[_Mapping[str, ForecastValues]] = ..., targets: _Optional[_Iterable[str]] = ..., timestamps: _Optional[_Iterable[str]] = ...) -> None: ...

class ForecastValues(_message.Message):
    __slots__ = ("values", "steps", "targets")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    steps: int
    targets: int
    def __init__(self, values: _Optional[_Iterable[float]] = ..., steps: _Optional[int] = ..., targets: _Optional[int] = ...) -> None: ...

class AppendSessionsRequest(_message.Message):
    __slots__ = ("items", "horizon", "quantiles")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[AppendItem]
    horizon: int
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, items: _Optional[_Iterable[_Union[AppendItem, _Mapping]]] = ..., horizon: _Optional[int] = ..., quantiles: _Optional[_Iterable[float]] = ...) -> None: ...

class AppendItem(_message.Message):
    __slots__ = ("session", "values", "features", "expected_steps")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    session: str
    values: _containers.RepeatedScalarFieldContainer[float]
    features: int
    expected_steps: int
    def __init__(self, session: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., features: _Optional[int] = ..., expected_steps: _Optional[int] = ...) -> None: ...

class AppendSessionsResponse(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[AppendedItem]
    def __init__(self, items: _Optional[_Iterable[_Union[AppendedItem, _Mapping]]] = ...) -> None: ...

class AppendedItem(_message.Message):
    __slots__ = ("session", "steps", "result", "error", "code")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    session: str
    steps: int
    result: ForecastResult
    error: str
    code: str
    def __init__(self, session: _Optional[str] = ..., steps: _Optional[int] = ..., result: _Optional[_Union[ForecastResult, _Mapping]] = ..., error: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("id", "open", "append", "fork", "close")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    FORK_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    id: str
    open: OpenSession
    append: AppendSession
    fork: ForkSession
    close: CloseSession
    def __init__(self, id: _Optional[str] = ..., open: _Optional[_Union[OpenSession, _Mapping]] = ..., append: _Optional[_Union[AppendSession, _Mapping]] = ..., fork: _Optional[_Union[ForkSession, _Mapping]] = ..., close: _Optional[_Union[CloseSession, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("id", "opened", "appended", "closed", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    opened: SessionOpened
    appended: SessionAppended
    closed: SessionClosed
    error: SessionError
    def __init__(self, id: _Optional[str] = ..., opened: _Optional[_Union[SessionOpened, _Mapping]] = ..., appended: _Optional[_Union[SessionAppended, _Mapping]] = ..., closed: _Optional[_Union[SessionClosed, _Mapping]] = ..., error: _Optional[_Union[SessionError, _Mapping]] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("model", "values", "features", "start", "frequency")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    model: str
    values: _containers.RepeatedScalarFieldContainer[float]
    features: int
    start: str
    frequency: str
    def __init__(self, model: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., features: _Optional[int] = ..., start: _Optional[str] = ..., frequency: _Optional[str] = ...) -> None: ...

class AppendSession(_message.Message):
    __slots__ = ("session", "values", "features", "horizon", "quantiles", "expected_steps")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    QUANTILES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_STEPS_FIELD_NUMBER: _ClassVar[int]
    session: str
    values: _containers.RepeatedScalarFieldContainer[float]
    features: int
    horizon: int
    quantiles: _containers.RepeatedScalarFieldContainer[float]
    expected_steps: int
    def __init__(self, session: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., features: _Optional[int] = ..., horizon: _Optional[int] = ..., quantiles: _Optional[_Iterable[float]] = ..., expected_steps: _Optional[int] = ...) -> None: ...

class ForkSession(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class CloseSession(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class SessionOpened(_message.Message):
    __slots__ = ("session", "model", "version", "steps", "expires_in")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    session: str
    model: str
    version: str
    steps: int
    expires_in: float
    def __init__(self, session: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., steps: _Optional[int] = ..., expires_in: _Optional[float] = ...) -> None: ...

class SessionAppended(_message.Message):
    __slots__ = ("session", "steps", "expires_in", "result")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    session: str
    steps: int
    expires_in: float
    result: ForecastResult
    def __init__(self, session: _Optional[str] = ..., steps: _Optional[int] = ..., expires_in: _Optional[float] = ..., result: _Optional[_Union[ForecastResult, _Mapping]] = ...) -> None: ...

class SessionClosed(_message.Message):
    __slots__ = ("session", "steps")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    session: str
    steps: int
    def __init__(self, session: _Optional[str] = ..., steps: _Optional[int] = ...) -> None: ...

class SessionError(_message.Message):
    __slots__ = ("error", "code", "field")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    error: str
    code: str
    field: str
    def __init__(self, error: _Optional[str] = ..., code: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelDescription]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelDescription, _Mapping]]] = ...) -> None: ...

class ModelDescription(_message.Message):
    __slots__ = ("name", "task", "version", "versions", "state", "default", "description", "reason", "labels", "features", "targets", "frequency", "history", "max_horizon", "streamable", "plan")
    class PlanEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    MAX_HORIZON_FIELD_NUMBER: _ClassVar[int]
    STREAMABLE_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    version: str
    versions: _containers.RepeatedScalarFieldContainer[str]
    state: str
    default: bool
    description: str
    reason: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    features: _containers.RepeatedScalarFieldContainer[str]
    targets: _containers.RepeatedScalarFieldContainer[str]
    frequency: str
    history: int
    max_horizon: int
    streamable: bool
    plan: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., version: _Optional[str] = ..., versions: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ..., default: _Optional[bool] = ..., description: _Optional[str] = ..., reason: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., features: _Optional[_Iterable[str]] = ..., targets: _Optional[_Iterable[str]] = ..., frequency: _Optional[str] = ..., history: _Optional[int] = ..., max_horizon: _Optional[int] = ..., streamable: _Optional[bool] = ..., plan: _Optional[_Mapping[str, str]] = ...) -> None: ...
