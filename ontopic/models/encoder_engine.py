"""What runs the sentence encoder: OpenVINO, and PyTorch where that can't.

OpenVINO's graph is written out, as it is small: its converter traces the PyTorch model, which takes eight times as long
as building and compiling, and reports to its makers. A test holds the graph to what Transformers computes.

Batches hold texts of one length. So nothing is padded, and a vector is the same to the last bit whatever else is
encoded with it.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from openvino import Model

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Batch = tuple[Integers, Integers]
"""Token ids of shape (texts, tokens), and of the same shape ``own``: 1 where a token is the text's, 0 where it is its
context's."""

logger = logging.getLogger(__name__)


class EncoderEngine(Protocol):
    """Turns batches into vectors."""

    def vectors(self, batches: Iterable[Batch]) -> Iterator[Floats]:
        """Of each batch in turn the vectors of its texts, of shape (texts, size) and of length 1.

        A vector is the mean of the last hidden states of the text's own tokens.
        """
        ...


def encoder_engine(model: Any, *, bfloat16: bool) -> EncoderEngine:
    """What runs the encoder fastest here, on as many threads as PyTorch has now.

    Args:
        model: Transformers' ``BertModel``, which stays as it is.
        bfloat16: whether it computes in bfloat16; else in fp32.
    """
    try:
        return OpenVINOEngine(model, bfloat16=bfloat16)
    except (ImportError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0]
        logger.warning("the sentence encoder runs on PyTorch, which is slower, as OpenVINO can't run it: %s", said)
        return TorchEngine(model, bfloat16=bfloat16)


class TorchEngine:
    """The encoder on PyTorch."""

    def __init__(self, model: Any, *, bfloat16: bool) -> None:
        self._model = copy.deepcopy(model).eval().to(torch.bfloat16 if bfloat16 else torch.float32)

    @torch.inference_mode()
    def vectors(self, batches: Iterable[Batch]) -> Iterator[Floats]:
        """See ``EncoderEngine.vectors``."""
        for batch in batches:
            ids, own = map(torch.from_numpy, batch)
            states = self._model(input_ids=ids, token_type_ids=1 - own).last_hidden_state
            total = (states.float() * own.unsqueeze(-1)).sum(1)
            yield torch.nn.functional.normalize(total, dim=1).numpy()


class OpenVINOEngine:
    """The encoder on OpenVINO, with a stream of one thread for each of PyTorch's.

    Streams of one thread never wait for one another, which counts where other processes have a part of the cores.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: it can't run this model, or not here.
    """

    def __init__(self, model: Any, *, bfloat16: bool) -> None:
        import openvino

        self._streams = torch.get_num_threads()
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": self._streams,
            "NUM_STREAMS": self._streams,
            "ENABLE_CPU_PINNING": False,  # each process would pin its first stream to the same core
        }
        self._compiled = openvino.Core().compile_model(encoder_graph(model), "CPU", options)

    def vectors(self, batches: Iterable[Batch]) -> Iterator[Floats]:
        """See ``EncoderEngine.vectors``; a few batches are read ahead, and threads may call it side by side."""
        under_way: deque[Any] = deque()
        for batch in batches:
            # One for each stream, and one that waits, so that no stream does.
            full = len(under_way) > self._streams
            request = under_way.popleft() if full else self._compiled.create_infer_request()
            if full:
                yield _vectors_of(request)
            request.start_async(dict(enumerate(batch)))
            under_way.append(request)
        while under_way:
            yield _vectors_of(under_way.popleft())


def _vectors_of(request: Any) -> Floats:
    request.wait()
    return np.array(request.get_output_tensor(0).data)  # a copy: the request is used again


def encoder_graph(model: Any) -> Model:
    """The encoder as OpenVINO's operations: a ``Batch`` in, vectors out.

    Raises:
        ImportError: OpenVINO is not installed.
        RuntimeError: the model is built otherwise than the one that this is written for.
    """
    from openvino import Model, PartialShape, Type
    from openvino import opset13 as op

    config = model.config
    if (config.model_type, config.hidden_act) != ("bert", "gelu"):
        raise RuntimeError(f"it is {config.model_type} with {config.hidden_act}, and the graph is BERT with gelu")
    of = _Parts({name: value.detach().float().numpy() for name, value in model.state_dict().items()}, config)
    ids, own = (op.parameter(PartialShape([-1, -1]), Type.i64, name=name) for name in ("ids", "own"))
    length = op.gather(op.shape_of(ids), op.constant(1), op.constant(0))
    places = op.range(op.constant(0), length, op.constant(1), Type.i64)
    of_context = op.subtract(op.constant(np.int64(1)), own)
    states = op.add(
        of.embedding("word", ids), op.add(of.embedding("token_type", of_context), of.embedding("position", places))
    )
    states = of.layer_norm("embeddings.LayerNorm", states)
    for layer in range(config.num_hidden_layers):
        states = of.layer(f"encoder.layer.{layer}", states)
    counted = op.unsqueeze(op.convert(own, Type.f32), op.constant([2]))
    total = op.reduce_sum(op.multiply(states, counted), op.constant([1]))
    return Model([op.normalize_l2(total, op.constant([1]), 1e-12, "max")], [ids, own], "sentence encoder")


class _Parts:
    """What the graph is made of; states are of shape (texts, tokens, size)."""

    def __init__(self, weights: dict[str, Floats], config: Any) -> None:
        from openvino import opset13

        self._weights, self._config, self._op = weights, config, opset13

    def layer(self, name: str, states: Any) -> Any:
        op, attention = self._op, f"{name}.attention"
        by_head = op.constant([0, 0, self._config.num_attention_heads, -1])  # 0: as it is, -1: what is left
        query, key, value = (
            op.transpose(
                op.reshape(self._linear(f"{attention}.self.{part}", states), by_head, special_zero=True),
                op.constant([0, 2, 1, 3]),
            )
            for part in ("query", "key", "value")
        )
        read = op.transpose(op.scaled_dot_product_attention(query, key, value), op.constant([0, 2, 1, 3]))
        read = op.reshape(read, op.constant([0, 0, -1]), special_zero=True)
        added = op.add(self._linear(f"{attention}.output.dense", read), states)
        states = self.layer_norm(f"{attention}.output.LayerNorm", added)
        inner = op.gelu(self._linear(f"{name}.intermediate.dense", states), "erf")
        added = op.add(self._linear(f"{name}.output.dense", inner), states)
        return self.layer_norm(f"{name}.output.LayerNorm", added)

    def embedding(self, name: str, rows: Any) -> Any:
        table = self._op.constant(self._weights[f"embeddings.{name}_embeddings.weight"])
        return self._op.gather(table, rows, self._op.constant(0))

    def layer_norm(self, name: str, states: Any) -> Any:
        op = self._op
        # MVN: (x - mean) / sqrt(variance + epsilon)
        normal = op.mvn(
            states, op.constant([-1]), normalize_variance=True, eps=self._config.layer_norm_eps, eps_mode="inside_sqrt"
        )
        scaled = op.multiply(normal, op.constant(self._weights[f"{name}.weight"]))
        return op.add(scaled, op.constant(self._weights[f"{name}.bias"]))

    def _linear(self, name: str, states: Any) -> Any:
        weight, bias = (self._op.constant(self._weights[f"{name}.{kind}"]) for kind in ("weight", "bias"))
        return self._op.add(self._op.matmul(states, weight, transpose_a=False, transpose_b=True), bias)
