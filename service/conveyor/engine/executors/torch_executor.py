"""Batches through the networks of `conveyor.nn`, on the CPU or on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog
import torch

from conveyor.domain import ModelKey
from conveyor.engine.executors.candidates import REFERENCE, Candidate
from conveyor.engine.executors.graph_layer import GraphLayer
from conveyor.engine.executors.kernel.layer import KernelLayer
from conveyor.engine.executors.network import load_network, prepare_torch, resolve_device
from conveyor.engine.executors.port import Batch, BatchResult
from conveyor.engine.executors.torch_memory import inference
from conveyor.engine.executors.torch_states import TorchStates
from conveyor.errors import InvalidArgument
from conveyor.nn.models import SeriesForecaster, TaskModel
from conveyor.nn.packed import PackedLstm
from conveyor.nn.scan import RowScan, advance, read_out
from conveyor.spec import RecurrentSpec
from conveyor.wire.messages import Inputs
from conveyor.wire.port import PlanReport

__all__ = ["Choice", "Choose", "TorchExecutor"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """How a model is computed, and what decided so."""

    candidate: Candidate
    source: str


# What decides for each model, given its package, its device, and its recurrent layers. May raise PackageError.
Choose = Callable[[Path, torch.device, RecurrentSpec], Choice]


def _reference(_directory: Path, _device: torch.device, _spec: RecurrentSpec) -> Choice:
    return Choice(REFERENCE, "reference")


class TorchExecutor:
    """`Executor[RowScan]` over `conveyor.nn`.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: CUDA if there is any.
        choose: Decides how the recurrent layers of each model are computed; by default all by the reference, float32.

    Raises:
        ValueError: The device does not exist here.
    """

    def __init__(self, device: str, choose: Choose = _reference) -> None:
        self._device = resolve_device(device)
        self._choose = choose
        self._models: dict[ModelKey, TaskModel] = {}
        self._plans: dict[ModelKey, PlanReport] = {}
        # What sessions are computed by, where that is not what rows are: loaded when the first one is opened.
        self._directories: dict[ModelKey, Path] = {}
        self._references: dict[ModelKey, TaskModel] = {}
        prepare_torch()

    @property
    def device(self) -> str:
        """The device by name."""
        return str(self._device)

    def load(self, key: ModelKey, directory: Path) -> None:
        """Reads the weights and makes the network compute as was chosen."""
        network = load_network(directory, self._device)
        choice = self._choose(directory, self._device, network.recurrent.spec)
        choice.candidate.install(network)
        self._models[key] = network
        if choice.candidate is REFERENCE:
            self._references[key] = network
        self._directories[key] = directory
        plan = PlanReport(choice.candidate.executor, self.device, choice.candidate.precision, choice.source)
        self._plans[key] = plan
        _log.info("plan in force", model=key.name, version=key.version, **asdict(plan))

    def plan(self, key: ModelKey) -> PlanReport:
        """How a model is executed."""
        return self._plans[key]

    def is_ragged(self, key: ModelKey) -> bool:
        """Whether a kernel computes each row to its own end only."""
        return self._models[key].recurrent.ragged

    def blank(self, key: ModelKey, rows: int, steps: int) -> Inputs:
        """Inputs of a model's width and dtype that are all padding."""
        spec = self._models[key].spec
        if spec.task == "forecast":
            return np.zeros((rows, steps, spec.series.width), dtype=np.float32)
        return np.zeros((rows, steps, len(spec.text.columns)), dtype=np.int32)

    def run(self, key: ModelKey, batch: Batch) -> BatchResult:
        """Computes a batch; the arrays are copies on the host."""
        model = self._models[key]
        with inference():
            inputs, lengths = torch.from_numpy(batch.inputs), torch.from_numpy(batch.lengths.astype(np.int64))
            if self._device.type != "cpu":
                inputs, lengths = inputs.to(self._device), lengths.to(self._device)
            return _to_host(model, model.predict(inputs, lengths, batch.stairs))

    def begin(self, key: ModelKey, inputs: Inputs) -> RowScan:
        """Puts a long row on the device."""
        with inference():
            return RowScan(self._models[key], torch.from_numpy(inputs).to(self._device))

    def advance(self, key: ModelKey, scans: Sequence[RowScan], phase: int, steps: int, rows: int) -> None:
        """Runs the next steps of long rows in one call."""
        with inference():
            advance(self._models[key], scans, phase, steps, rows)
            if self._device.type == "cuda":
                # So that the caller measures the work and not its launch, and never queues up more than one chunk.
                torch.cuda.current_stream(self._device).synchronize()

    def finish(self, key: ModelKey, scan: RowScan) -> BatchResult:
        """The result of a long row."""
        model = self._models[key]
        with inference():
            return _to_host(model, read_out(model, scan))

    def session_states(self, key: ModelKey) -> TorchStates:
        """Room for sessions, which the float32 reference computes whatever the plan."""
        spec = self._models[key].spec
        if spec.task != "forecast" or not spec.streamable:
            raise InvalidArgument(f"a session needs a streamable model, which {key.name!r} is not", field="model")
        network = self._references.get(key)
        if network is None:
            network = self._references[key] = load_network(self._directories[key], self._device)
            REFERENCE.install(network)
        assert isinstance(network, SeriesForecaster)
        return TorchStates(network, self._device)

    def unload(self, key: ModelKey) -> None:
        """Forgets a model; CUDA memory goes back to the device."""
        del self._models[key], self._plans[key], self._directories[key]
        self._references.pop(key, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def memory_bytes(self) -> Mapping[str, int]:
        """`weights` on every device; on CUDA also what the allocator uses and holds."""
        weights = sum(map(_weight_bytes, self._models.values()))
        if self._device.type != "cuda":
            return {"weights": weights}
        return {
            "weights": weights,
            "allocated": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
        }


def _weight_bytes(network: TaskModel) -> int:
    held = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return held + sum(
        layer.num_bytes for layer in network.modules() if isinstance(layer, KernelLayer | GraphLayer | PackedLstm)
    )


def _to_host(model: TaskModel, outputs: Mapping[str, torch.Tensor]) -> BatchResult:
    return BatchResult({name: tensor.cpu().numpy() for name, tensor in outputs.items()}, model.stepwise)
