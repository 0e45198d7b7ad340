"""What a policy's file says, checked: a file is a stranger's input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from policyserver.client.array_file import Array, PolicyFileError, read_arrays
from policyserver.common.acting.action_form import ActionForm, UnsupportedSpaceError
from policyserver.common.acting.actor_net import ActorNet, Recurrent
from policyserver.common.acting.layers import Convolution, Dense, FlattenImage, Layer, LayerNorm, LayerShapeError, Lstm, Shape
from policyserver.common.acting.observations import Flattening, normalised, scaled
from policyserver.common.policy_format import ACTIVATIONS, DESCRIPTION, FORMAT_VERSION
from policyserver.common.spaces import describe, from_proto, leaves
from policyserver.v1 import policy_file_pb2 as pb

Rewrite = Callable[[list[Array]], list[Array]]
"""What is done to observations, one array per leaf, [n, ...]."""

_MOST_LAYERS = 256
_MOST_ELEMENTS = 2**24
"""Numbers that one observation may become on its way."""


@dataclass(frozen=True, slots=True)
class PolicyOrigin:
    """The run that a policy was taken from."""

    run: str
    """The run's name."""
    algorithm: str
    """RLlib's name of the algorithm."""
    checkpoint: int
    """Number of the checkpoint."""
    weights_seq_no: int
    """Version of the policy."""


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """A policy as its file describes it."""

    origin: PolicyOrigin
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    rewrites: Sequence[Rewrite]
    """What is done to an observation, frames apart."""
    frame: Array | None
    """An observation before an episode's first, where several are stacked: zeros."""
    num_frames: int
    net: ActorNet
    distribution: int
    epsilon: float
    form: ActionForm


def read_policy(path: Path, most_bytes: int) -> PolicyParts:
    """Read a policy.

    Raises:
        PolicyFileError: The file is no policy; the text names what is wrong.
        OSError: It can't be read.
    """
    arrays = read_arrays(path, most_bytes)
    try:
        description = pb.PolicyDescription()
        if DESCRIPTION not in arrays:
            raise PolicyFileError(f"expected an array {DESCRIPTION!r}, received none")
        json_format.Parse(arrays.pop(DESCRIPTION).tobytes().decode(), description, max_recursion_depth=64)
        return _Reader(arrays).policy(description)
    except (json_format.ParseError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise PolicyFileError(f"{path}: {error}") from error


class _Reader:
    """Puts the parts of a policy together out of its arrays."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays
        self._unused = set(arrays)

    def policy(self, said: pb.PolicyDescription) -> PolicyParts:
        if said.format_version != FORMAT_VERSION:
            raise PolicyFileError(f"format_version: expected {FORMAT_VERSION}, received {said.format_version}; install a newer client")
        observation_space, action_space = (from_proto(getattr(said, name), name) for name in ("observation_space", "action_space"))
        rewrites, frame, num_frames = self._rewrites(said.rewrites, observation_space)
        shape = (*frame.shape[:-1], frame.shape[-1] * num_frames) if frame.ndim else frame.shape
        net = self._net(said.net)
        try:
            _check_sizes(net, shape)
            outputs = net.output_size(shape)
            form = ActionForm(action_space, normalize=said.normalize_actions, clip=said.clip_actions)
        except (LayerShapeError, UnsupportedSpaceError) as error:
            raise PolicyFileError(f"net: {error}") from error
        if (expected := _expected_outputs(said.distribution, action_space)) != outputs:
            raise PolicyFileError(f"net: expected {expected} outputs for {describe(action_space)}, received {outputs}")
        if not 0.0 <= said.epsilon <= 1.0:
            raise PolicyFileError(f"epsilon: expected a number from 0 to 1, received {said.epsilon}")
        if self._unused:
            raise PolicyFileError(f"expected arrays that the description names, received {min(self._unused)!r}")
        origin = PolicyOrigin(said.origin.run, said.origin.algorithm, said.origin.checkpoint, said.origin.weights_seq_no)
        earlier = frame if num_frames > 1 else None
        return PolicyParts(
            origin, observation_space, action_space, rewrites, earlier, num_frames, net, said.distribution, said.epsilon, form
        )

    # Observations --------------------------------------------------------------------------------------------------------------------

    def _rewrites(self, said: Sequence[pb.ObservationRewrite], space: gym.Space[Any]) -> tuple[list[Rewrite], Array, int]:
        """Return what is done, what comes of it, as one observation of zeros, and how many of these are stacked."""
        rewrites: list[Rewrite] = []
        num_frames = 1
        if len(said) > _MOST_LAYERS:
            raise PolicyFileError(f"rewrites: expected at most {_MOST_LAYERS}, received {len(said)}")
        for number, each in enumerate(said):
            where = f"rewrites[{number}]"
            match kind := each.WhichOneof("kind"):
                case "flatten":
                    flattening = Flattening(space, set(each.flatten.keys_to_remove))
                    space = _box(flattening.size, where)
                    rewrites.append(_rewrite_of(flattening))
                case "scale_images":
                    space = _box(_only_leaf(space, where, np.uint8).shape, where)
                    rewrites.append(lambda observations: [scaled(observations[0])])
                case "mean_std":
                    rewrites.append(self._mean_std(each.mean_std, _only_leaf(space, where), where))
                case "stack_frames":
                    num_frames = each.stack_frames.num_frames
                    shape = _only_leaf(space, where).shape
                    is_small = num_frames * math.prod(shape) <= _MOST_ELEMENTS
                    if number < len(said) - 1 or len(shape) != 3 or num_frames < 2 or not is_small:
                        raise PolicyFileError(
                            f"{where}: expected stacked images as the last rewrite, received {num_frames} of {list(shape)}"
                        )
                case _:
                    raise PolicyFileError(f"{where}.kind: expected a rewrite that this client knows, received {kind}")
        return rewrites, _only_leaf(space, "observation_space"), num_frames

    def _mean_std(self, said: pb.MeanStdRewrite, leaf: Array, where: str) -> Rewrite:
        mean = self._array(said.mean, f"{where}.mean", leaf.shape, np.float64)
        deviation = self._array(said.deviation, f"{where}.deviation", leaf.shape)
        clip = said.clip if said.HasField("clip") else None
        if clip is not None and not 0.0 < clip < math.inf:
            raise PolicyFileError(f"{where}.clip: expected a positive number, received {clip}")
        options: dict[str, Any] = {"demean": said.demean, "destd": said.destd, "clip": clip}
        return lambda observations: [normalised(observations[0], observations[0] - mean, deviation, **options)]

    # The net -------------------------------------------------------------------------------------------------------------------------

    def _net(self, said: pb.Net) -> ActorNet:
        if not said.head:
            raise PolicyFileError("net.head: expected one layer at least, received none")
        bound = said.log_std_bound if said.HasField("log_std_bound") else None
        if bound is not None and not bound >= 0.0:
            raise PolicyFileError(f"net.log_std_bound: expected a number from 0, received {bound}")
        encoder, head, value_head = (self._layers(getattr(said, name), f"net.{name}") for name in ("encoder", "head", "value_head"))
        recurrent = [Recurrent(encoder, self._lstm(said.lstm))] if said.HasField("lstm") else []
        log_stds = self._array(said.log_stds, "net.log_stds", (None,)) if said.log_stds else None
        return ActorNet(() if recurrent else encoder, recurrent, head, value_head, log_stds, bound)

    def _layers(self, said: Sequence[pb.Layer], where: str) -> list[Layer]:
        if len(said) > _MOST_LAYERS:
            raise PolicyFileError(f"{where}: expected at most {_MOST_LAYERS} layers, received {len(said)}")
        return [self._layer(layer, f"{where}[{number}]") for number, layer in enumerate(said)]

    def _layer(self, said: pb.Layer, where: str) -> Layer:
        match kind := said.WhichOneof("kind"):
            case "dense":
                dense = said.dense
                weight = self._array(dense.weight, f"{where}.weight", (None, None))
                return Dense(weight, self._bias(dense, weight.shape[1], where), _activation(dense, where))
            case "layer_norm":
                norm = said.layer_norm
                weight = self._array(norm.weight, f"{where}.weight", (None,))
                if not 0.0 < norm.epsilon < math.inf:
                    raise PolicyFileError(f"{where}.epsilon: expected a positive number, received {norm.epsilon}")
                bias = self._array(norm.bias, f"{where}.bias", weight.shape)
                return LayerNorm(weight, bias, norm.epsilon, _activation(norm, where))
            case "convolution":
                return self._convolution(said.convolution, where)
            case "flatten_image":
                return FlattenImage()
        raise PolicyFileError(f"{where}.kind: expected a layer that this client knows, received {kind}")

    def _convolution(self, said: pb.ConvolutionLayer, where: str) -> Convolution:
        weight = self._array(said.weight, f"{where}.weight", (None,) * 4)
        height, width = weight.shape[2:]
        stride, padding = tuple(said.stride), tuple(said.padding)
        if len(stride) != 2 or not all(1 <= step <= _MOST_ELEMENTS for step in stride):
            raise PolicyFileError(f"{where}.stride: expected two numbers from 1, received {list(stride[:9])}")
        if len(padding) != 4 or max(padding[:2]) > height or max(padding[2:]) > width:
            raise PolicyFileError(
                f"{where}.padding: expected four numbers up to the kernel's {height} and {width}, received {list(padding[:9])}"
            )
        return Convolution(weight, self._bias(said, weight.shape[0], where), stride, padding, _activation(said, where))

    def _bias(self, said: pb.DenseLayer | pb.ConvolutionLayer, outputs: int, where: str) -> Array | None:
        return self._array(said.bias, f"{where}.bias", (outputs,)) if said.bias else None

    def _lstm(self, said: pb.Lstm) -> Lstm:
        of_inputs = self._array(said.input_weight, "net.lstm.input_weight", (None, None))
        size = of_inputs.shape[0] // 4
        of_outputs = self._array(said.output_weight, "net.lstm.output_weight", (4 * size, size))
        bias = self._array(said.bias, "net.lstm.bias", (4 * size,))
        if of_inputs.shape[0] != 4 * size:
            raise PolicyFileError(f"net.lstm.input_weight: expected four gates, received {list(of_inputs.shape)}")
        lstm = Lstm(size, of_inputs.shape[1])
        lstm.load(of_inputs, of_outputs, bias)
        return lstm

    def _array(self, name: str, where: str, shape: Sequence[int | None], dtype: type = np.float32) -> Array:
        """Return an array of the file; None stands for any length of an axis but 0."""
        array = self._arrays.get(name)
        if array is None:
            raise PolicyFileError(f"{where}: expected the name of an array, received {name[:80]!r}")
        self._unused.discard(name)
        fits = array.ndim == len(shape) and all(size == (wanted or size) for size, wanted in zip(array.shape, shape, strict=True))
        if array.dtype != dtype or not fits or not (array.size or 0 in shape):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise PolicyFileError(f"{where}: expected {np.dtype(dtype)}[{wanted}], received {array.dtype}{list(array.shape)}")
        if not np.isfinite(array).all():
            raise PolicyFileError(f"{where}: expected finite numbers, received others")
        return array


def _box(shape: int | tuple[int, ...], where: str) -> gym.spaces.Box:
    """Return the space of observations of float32 numbers; one of another space is no larger than its file, or checked to be small."""
    if math.prod(shape if isinstance(shape, tuple) else (shape,)) > _MOST_ELEMENTS:
        raise PolicyFileError(f"{where}: expected at most {_MOST_ELEMENTS} numbers, received {shape}")
    return gym.spaces.Box(-np.inf, np.inf, (shape,) if isinstance(shape, int) else shape, np.float32)


def _only_leaf(space: gym.Space[Any], where: str, dtype: Any = None) -> Array:
    """Return zeros of a space that is its own only leaf, and of a dtype if that matters."""
    parts = leaves(space)
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple) or dtype not in (None, parts[0].dtype):
        wanted = f" of {np.dtype(dtype)}" if dtype is not None else ""
        raise PolicyFileError(f"{where}: expected one array{wanted} here, received {describe(space)}")
    return np.zeros(parts[0].shape, parts[0].dtype)


def _rewrite_of(flattening: Flattening) -> Rewrite:
    return lambda observations: [flattening(observations)]


def _check_sizes(net: ActorNet, shape: Shape) -> None:
    """Refuse convolutions that take far more memory than an observation and the weights do."""
    for layer in net.recurrent[0].layers if net.recurrent else net.encoder:
        after = layer.output_shape(shape)
        if isinstance(layer, Convolution) and math.prod(after[:2]) * layer.weight[0].size > _MOST_ELEMENTS:
            raise LayerShapeError(
                f"expected at most {_MOST_ELEMENTS} products of a convolution, received more, for images of {list(shape)}"
            )
        shape = after


def _activation(said: Message, where: str) -> str:
    number = getattr(said, "activation")  # noqa: B009 - of several kinds of messages
    if number not in ACTIVATIONS:
        raise PolicyFileError(f"{where}.activation: expected one that this client knows, received {number}")
    return ACTIVATIONS[number]


def _expected_outputs(distribution: int, space: gym.Space[Any]) -> int:
    match distribution, space:
        case ((pb.DISTRIBUTION_CATEGORICAL | pb.DISTRIBUTION_Q_VALUES), gym.spaces.Discrete()):
            return int(space.n)
        case pb.DISTRIBUTION_MULTI_CATEGORICAL, gym.spaces.MultiDiscrete():
            return sum(map(int, space.nvec.flat))
        case ((pb.DISTRIBUTION_GAUSSIAN | pb.DISTRIBUTION_SQUASHED_GAUSSIAN), gym.spaces.Box()):
            return 2 * math.prod(space.shape)
    raise PolicyFileError(f"distribution: expected one of actions of {describe(space)}, received {distribution}")
