"""Writes a policy's net as an ONNX graph, with what is done to observations before it.

The graph is put together by hand, out of the parts that the other format is made of. So it has a dozen kinds of nodes, and the
connectors are in it. PyTorch's exporter would trace the net alone, through RLlib's dictionaries of columns, and needs another package.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from policyserver.common.acting.layers import Convolution, Dense, Layer, LayerNorm, Lstm
from policyserver.common.acting.observations import LEAST_DEVIATION
from policyserver.common.spaces import Array, leaves
from policyserver.server.export.errors import ExportError
from policyserver.server.export.portable import PortablePolicy
from policyserver.server.policies.vectorized.mean_std_filter import FrozenFilter, VectorizedMeanStdFilter
from policyserver.server.policies.vectorized.observation_connectors import VectorizedFlatten
from policyserver.server.policies.vectorized.scale_images import VectorizedScale
from policyserver.v1 import policy_file_pb2 as pb

_OPSET = 18
_IR_VERSION = 10
OUTPUT = "action_dist_inputs"
"""Name of the output: what `LocalPolicy.forward` returns."""
_BATCH = "batch"


def write_onnx(policy: PortablePolicy, path: Path) -> None:
    """Write a net. Its inputs are one array for each leaf of the observation space, and c and h of a recurrent net.

    Raises:
        ExportError: The package onnx is not installed.
        OSError: The file can't be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise ExportError('expected the package onnx; `pip install ".[onnx]"` in a clone of the repository installs it') from error
    model = _Graph(onnx, policy).model()
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


class _Graph:
    """A graph that grows node by node. Values are known by their names."""

    def __init__(self, onnx: Any, policy: PortablePolicy) -> None:
        self._onnx, self._policy = onnx, policy
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._numbers = itertools.count()

    def model(self) -> Any:
        """Return the whole model."""
        helper, policy = self._onnx.helper, self._policy
        rows = self._observation()
        net = policy.net
        actor = net.recurrent[0] if net.recurrent else None
        for layer in actor.layers if actor is not None else net.encoder:
            rows = self._layer(layer, rows)
        if actor is not None:
            rows = self._lstm(actor.lstm, rows)
        self._node("Identity", self._head(rows), output=OUTPUT)
        self._outputs.append(self._value(OUTPUT, np.float32, (_BATCH, None)))
        graph = helper.make_graph(self._nodes, "policy", self._inputs, self._outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        trained = policy.trained
        said = {
            "run": trained.config.run,
            "algorithm": trained.config.algorithm.name,
            "checkpoint": trained.checkpoint.number,
            "weights_seq_no": trained.checkpoint.progress.weights_seq_no,
            "distribution": pb.Distribution.Name(policy.distribution),
        }
        helper.set_model_props(model, {name: str(value) for name, value in said.items()})
        return model

    # Observations --------------------------------------------------------------------------------------------------------------------

    def _observation(self) -> str:
        """Add the inputs, and return the row of numbers or the image that the net sees, float32[batch, ...]."""
        space, policy = self._policy.trained.built.observation_space, self._policy
        found = leaves(space)
        columns = [leaf.path for leaf in found]
        for leaf in found:
            shape = leaf.shape if policy.num_frames == 1 else (*leaf.shape[:-1], policy.num_frames)
            self._inputs.append(self._value(leaf.path, leaf.dtype, (_BATCH, *shape)))
        dtype: np.dtype[Any] = found[0].dtype
        for connector in policy.connectors:
            match connector:
                case VectorizedFlatten():
                    parts = [self._flat(columns[index], depths) for index, depths in connector.parts]
                    columns, dtype = [self._node("Concat", *parts, axis=1)], np.dtype(np.float32)
                case VectorizedScale():
                    numbers = self._cast(columns[0], np.float32)
                    columns = [self._node("Sub", self._node("Div", numbers, self._constant(128.0)), self._constant(1.0))]
                    dtype = np.dtype(np.float32)
                case VectorizedMeanStdFilter():
                    columns = [self._cast(self._normalised(connector.frozen(), columns[0]), dtype)]
        return self._cast(columns[0], np.float32)

    def _flat(self, column: str, depths: Array | None) -> str:
        """Make one row of float32 numbers of a leaf, one-hot if its integers count up to `depths`."""
        rows = self._node("Flatten", self._cast(column, np.int64 if depths is not None else np.float32), axis=1)
        if depths is None:
            return rows
        codes = []
        for place, depth in enumerate(map(int, depths.flat)):
            digits = self._node("Gather", rows, self._constant([place], np.int64), axis=1)
            digits = self._node("Mod", digits, self._constant(depth, np.int64))  # negative ones count from the end
            codes.append(self._cast(self._node("Equal", digits, self._constant(np.arange(depth), np.int64)), np.float32))
        return self._node("Concat", *codes, axis=1)

    def _normalised(self, frozen: FrozenFilter, column: str) -> str:
        rows = self._cast(column, np.float64)
        if frozen.demean:
            rows = self._node("Sub", rows, self._constant(frozen.mean, np.float64))
        if frozen.destd:
            rows = self._node("Div", rows, self._constant(frozen.deviation + np.float32(LEAST_DEVIATION), np.float64))
        if frozen.clip:
            rows = self._node("Clip", rows, self._constant(-frozen.clip, np.float64), self._constant(frozen.clip, np.float64))
        return rows

    # The net -------------------------------------------------------------------------------------------------------------------------

    def _layer(self, layer: Layer, rows: str) -> str:
        match layer:
            case Dense():
                rows = self._node("MatMul", rows, self._constant(layer.weight))
                if layer.bias is not None:
                    rows = self._node("Add", rows, self._constant(layer.bias))
            case LayerNorm():
                weights = self._constant(layer.weight), self._constant(layer.bias)
                rows = self._node("LayerNormalization", rows, *weights, axis=-1, epsilon=layer.epsilon)
            case Convolution():
                top, bottom, left, right = layer.padding
                filters = [self._constant(array) for array in (layer.weight, layer.bias) if array is not None]
                rows = self._node("Transpose", rows, perm=[0, 3, 1, 2])
                rows = self._node("Conv", rows, *filters, strides=list(layer.stride), pads=[top, left, bottom, right])
                rows = self._node("Transpose", rows, perm=[0, 2, 3, 1])
            case _:
                return self._node("Flatten", rows, axis=1)
        match layer.activation:
            case "tanh":
                return self._node("Tanh", rows)
            case "relu":
                return self._node("Relu", rows)
            case "silu":
                return self._node("Mul", rows, self._node("Sigmoid", rows))
        return rows

    def _lstm(self, lstm: Lstm, rows: str) -> str:
        """Add one step of an LSTM, and its state as inputs and outputs."""
        for name in ("c", "h"):
            self._inputs.append(self._value(name, np.float32, (_BATCH, 1, lstm.size)))
            self._outputs.append(self._value(f"{name}_out", np.float32, (_BATCH, 1, lstm.size)))
        axis = self._constant([1], np.int64)
        c, h = (self._node("Squeeze", name, axis) for name in ("c", "h"))
        of_inputs, of_outputs, bias = lstm.weights()
        gates = self._node("MatMul", rows, self._constant(of_inputs.T))
        gates = self._node("Add", gates, self._node("MatMul", h, self._constant(of_outputs.T)))
        gates = self._node("Add", gates, self._constant(bias))
        names = self._split(gates, 4)
        let_in, forget, let_out = (self._node("Sigmoid", names[place]) for place in (0, 1, 3))
        added = self._node("Mul", let_in, self._node("Tanh", names[2]))
        c = self._node("Add", self._node("Mul", forget, c), added)
        h = self._node("Mul", let_out, self._node("Tanh", c))
        for name, value in (("c_out", c), ("h_out", h)):
            self._node("Unsqueeze", value, axis, output=name)
        return h

    def _head(self, features: str) -> str:
        net = self._policy.net
        rows = features
        for layer in net.head:
            rows = self._layer(layer, rows)
        if net.value_head:
            rows = self._node("Sub", rows, self._node("ReduceMean", rows, self._constant([1], np.int64)))
            for layer in net.value_head:
                features = self._layer(layer, features)
            rows = self._node("Add", rows, features)
        if net.log_stds is not None:
            rows = self._node("Concat", rows, self._node("Expand", self._constant(net.log_stds), self._node("Shape", rows)), axis=1)
        if net.log_std_bound is not None:
            means, log_stds = self._split(rows, 2)
            log_stds = self._node("Clip", log_stds, self._constant(-net.log_std_bound), self._constant(net.log_std_bound))
            rows = self._node("Concat", means, log_stds, axis=1)
        return rows

    # Parts of a graph ----------------------------------------------------------------------------------------------------------------

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind}_{next(self._numbers)}"
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _split(self, rows: str, parts: int) -> Sequence[str]:
        """Divide the last of two axes."""
        names = [f"Split_{next(self._numbers)}" for _ in range(parts)]
        self._nodes.append(self._onnx.helper.make_node("Split", [rows], names, axis=1, num_outputs=parts))
        return names

    def _cast(self, rows: str, dtype: Any) -> str:
        return self._node("Cast", rows, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{next(self._numbers)}"
        self._constants.append(self._onnx.numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def _value(self, name: str, dtype: Any, shape: Sequence[int | str | None]) -> Any:
        number = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, number, shape)
