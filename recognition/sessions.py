"""ONNX Runtime behind a narrow protocol: a model folder in, arrays out, on the provider and precision that
its card names.

Open a session after the process has forked: its threads do not survive a fork.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from recognition.errors import ModelRefused
from recognition.model_card import (
    DecodedOutputs,
    EmbedderOutputs,
    ModelCard,
    ModelFolder,
    Precision,
    Provider,
)

logger = logging.getLogger(__name__)

PROVIDER_NAMES: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "openvino": "OpenVINOExecutionProvider"}

# What OpenVINO computes with where the graph leaves it the choice. Never left open: its own default differs from
# machine to machine, and the ONNX Runtime provider's differs from it. An int8 graph says itself what is quantised.
OPENVINO_PRECISION: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

TENSOR_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


class ModelSession(Protocol):
    """What a detector or an embedder needs of an engine."""

    @property
    def provider(self) -> Provider:
        """Where the model really runs."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a batch: inputs by name, all (N, ...) with one N >= 1; outputs by name, all (N, ...)."""
        ...


@dataclass(frozen=True)
class SessionSettings:
    """How much of the machine a session takes.

    Attributes:
        threads: at most so many of the machine's cores compute for the session at once.
        batch_sizes: the only batch sizes that are ever run, since a new one costs time. Other numbers are split
            into them; what is left below the smallest is padded to it. Each takes some 6 MB; a basket of five
            crops takes an eighth longer as four and one.
        allow_cpu_fallback: whether a plain fp32 model may run on ONNX Runtime's own provider where OpenVINO
            is not to be had. It is logged.
    """

    threads: int = 1
    batch_sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    allow_cpu_fallback: bool = True

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads: found {self.threads}, wanted 1 or more.")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes: found {self.batch_sizes}, wanted one or more sizes of 1 or more.")


class OnnxSession:
    """An ONNX Runtime session that runs a few warmed batch sizes only. Threads may call `run` at once."""

    def __init__(
        self, session: onnxruntime.InferenceSession, card: ModelCard, batch_sizes: tuple[int, ...]
    ) -> None:
        """
        Args:
            session: made on the right provider.
            card: of the model.
            batch_sizes: see SessionSettings; a model whose own batch is fixed has that one only.
        Raises:
            ModelRefused: the graph's inputs or outputs are not those of the card.
        """
        _check_graph(session, card)
        fixed_batch = session.get_inputs()[0].shape[0]
        self._session = session
        self._output_names = _output_names(card)
        self._batch_sizes = (
            (fixed_batch,) if isinstance(fixed_batch, int) else tuple(sorted(set(batch_sizes)))
        )
        self._warm_up(card)

    @property
    def provider(self) -> Provider:
        """Where the model really runs."""
        first = self._session.get_providers()[0]
        return next(provider for provider, name in PROVIDER_NAMES.items() if name == first)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run a batch of any size.

        Args:
            inputs: by name, each (N, ...) with one N >= 1.
        Returns:
            The card's outputs by name, each (N, ...).
        """
        count = len(next(iter(inputs.values())))
        parts = []
        start = 0
        while start < count:
            size = self._batch_size_for(count - start)
            batch = {name: _padded(array[start : start + size], size) for name, array in inputs.items()}
            outputs = self._session.run(self._output_names, batch)
            parts.append([output[: count - start] for output in outputs])
            start += size
        joined = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
        return dict(zip(self._output_names, joined, strict=True))

    def _batch_size_for(self, waiting: int) -> int:
        """The largest size that is full, or else the smallest: a padded batch costs as much as a full one."""
        full = [size for size in self._batch_sizes if size <= waiting]
        return full[-1] if full else self._batch_sizes[0]

    def _warm_up(self, card: ModelCard) -> None:
        shape = (3, card.input.height, card.input.width)
        for size in self._batch_sizes:
            outputs = self.run({card.input.name: np.zeros((size, *shape), card.input.dtype)})
            for name, output in outputs.items():
                if len(output) != size:
                    raise ModelRefused(
                        f"{card.name}: output {name} of a batch of {size} has shape {output.shape}, "
                        f"wanted ({size}, ...); export the model with the batch as every output's first axis."
                    )


def open_session(folder: ModelFolder, settings: SessionSettings) -> OnnxSession:
    """Open a model on the provider and at the precision that its card names, and make sure that it is there.

    Args:
        folder: checked.
        settings: how much of the machine it may take.
    Raises:
        ModelRefused: the file cannot be run so, or is not what the card says.
    """
    card = folder.card
    if card.provider == "cpu":
        return OnnxSession(_create(folder, "cpu", settings), card, settings.batch_sizes)
    try:
        session = _create(folder, "openvino", settings)
    except ModelRefused as refused:
        if card.precision != "fp32" or not settings.allow_cpu_fallback:
            raise
        logger.warning("%s runs on the plain CPU provider, which is slower: %s", card.name, refused)
        session = _create(folder, "cpu", settings)
    return OnnxSession(session, card, settings.batch_sizes)


def _create(
    folder: ModelFolder, provider: Provider, settings: SessionSettings
) -> onnxruntime.InferenceSession:
    card = folder.card
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: a graph's warnings are its exporter's business
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin take the cores from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider == "openvino":
        # Without this a graph that OpenVINO knows only in part would quietly run in part elsewhere.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    wanted = f"{card.name} {card.version} was made for {card.provider} at {card.precision}"
    advice = "use the onnxruntime-openvino that this project pins, or a model that was made for this machine."
    try:
        session = onnxruntime.InferenceSession(
            folder.model_path,
            options,
            providers=[(PROVIDER_NAMES[provider], _provider_options(card, provider, settings))],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        refused = f"{wanted}, and {provider} cannot run {folder.model_path} ({error}); {advice}"
        raise ModelRefused(refused) from error
    # An option that the provider does not like makes ONNX Runtime leave it out, without an error.
    found = session.get_providers()[0]
    if found != PROVIDER_NAMES[provider]:
        raise ModelRefused(f"{wanted}, found {found} in its place; {advice}")
    return session


def _provider_options(card: ModelCard, provider: Provider, settings: SessionSettings) -> dict[str, str]:
    if provider == "cpu":
        return {}
    engine = {
        "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[card.precision],
        "INFERENCE_NUM_THREADS": str(settings.threads),
        "NUM_STREAMS": "1",
    }
    # As text: a path to a file of options is not taken, and the provider left out without a word.
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": engine})}


def _output_names(card: ModelCard) -> list[str]:
    outputs = card.outputs
    if isinstance(outputs, EmbedderOutputs):
        names = [outputs.embedding, outputs.hash or outputs.embedding]
    elif isinstance(outputs, DecodedOutputs):
        names = [outputs.boxes, outputs.scores]
    else:
        names = [name for level in outputs.levels for name in (level.scores, level.distributions)]
    return list(dict.fromkeys(names))


def _check_graph(session: onnxruntime.InferenceSession, card: ModelCard) -> None:
    """Refuse a graph whose inputs and outputs are not those of the card."""
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    if set(inputs) != {card.input.name}:
        raise ModelRefused(
            f"{card.name}: the graph's inputs are {list(inputs)}, the card says {card.input.name!r} alone."
        )
    tensor = inputs[card.input.name]
    if tensor.type != TENSOR_TYPES[card.input.dtype]:
        raise ModelRefused(
            f"{card.name}: the graph's input is {tensor.type}, the card says {card.input.dtype}."
        )
    shape = (3, card.input.height, card.input.width)
    fits = len(tensor.shape) == 4 and all(
        not isinstance(found, int) or found == wanted
        for found, wanted in zip(tensor.shape[1:], shape, strict=True)
    )
    if not fits:
        raise ModelRefused(f"{card.name}: the graph's input is {tensor.shape}, the card says (N, {shape}).")
    outputs = [tensor.name for tensor in session.get_outputs()]
    missing = [name for name in _output_names(card) if name not in outputs]
    if missing:
        raise ModelRefused(
            f"{card.name}: the graph has no output {missing}, only {outputs}; correct the card."
        )


def _padded(batch: NDArray[Any], size: int) -> NDArray[Any]:
    missing = size - len(batch)
    return np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)]) if missing else batch
