"""The layers of RLlib's default nets, for one step. What they are given may be one row, or have any leading axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from policyserver.common.spaces import Array

Shape = tuple[int, ...]


def _relu(rows: Array, out: Array) -> None:
    np.maximum(rows, 0.0, out=out)


def _silu(rows: Array, out: Array) -> None:
    np.multiply(rows, 0.5 + 0.5 * np.tanh(0.5 * rows), out=out)  # x * sigmoid(x), without an overflow


ACTIVATIONS: dict[str, Callable[[Array, Array], Any] | None] = {"linear": None, "tanh": np.tanh, "relu": _relu, "silu": _silu}
"""What follows a layer, by name: each writes into its second argument."""


class LayerShapeError(ValueError):
    """A layer that can't take what the one before it gives."""


class Dense:
    """A linear layer, with the activation that follows it."""

    def __init__(self, weight: Array, bias: Array | None, activation: str = "linear") -> None:
        """Take the arrays as they are: weight, float32[inputs, outputs], and bias, float32[outputs]."""
        self.weight, self.bias, self.activation = weight, bias, activation
        self._activate = ACTIVATIONS[activation]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what comes of one row of this shape; LayerShapeError if nothing does."""
        if shape != self.weight.shape[:1]:
            raise LayerShapeError(f"expected a weight for inputs of shape {list(shape)}, received {list(self.weight.shape)}")
        return (self.weight.shape[1],)

    def __call__(self, rows: Array) -> Array:
        """Return [..., outputs] from [..., inputs]."""
        out: Array = rows.dot(self.weight)
        if self.bias is not None:
            out += self.bias
        if self._activate is not None:
            self._activate(out, out)
        return out


class LayerNorm:
    """A normalisation over the last axis, with the activation that follows it."""

    def __init__(self, weight: Array, bias: Array, epsilon: float, activation: str = "linear") -> None:
        """Take the arrays as they are, float32[size] both."""
        self.weight, self.bias, self.epsilon, self.activation = weight, bias, epsilon, activation
        self._activate = ACTIVATIONS[activation]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what comes of one row of this shape; LayerShapeError if nothing does."""
        if shape[-1:] != self.weight.shape:
            raise LayerShapeError(f"expected a weight for inputs of shape {list(shape)}, received {list(self.weight.shape)}")
        return shape

    def __call__(self, rows: Array) -> Array:
        """Return an array of the same shape."""
        out: Array = rows - rows.mean(axis=-1, keepdims=True)
        out /= np.sqrt(np.square(out).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        out *= self.weight
        out += self.bias
        if self._activate is not None:
            self._activate(out, out)
        return out


class Convolution:
    """A convolution of images whose channels are their last axis, with the activation that follows it."""

    def __init__(self, weight: Array, bias: Array | None, stride: Shape, padding: Shape, activation: str = "linear") -> None:
        """Take the arrays as they are.

        Args:
            weight: float32[outputs, inputs, height, width].
            bias: float32[outputs].
            stride: Along the first and the second axis.
            padding: Zeros before and behind the first axis, before and behind the second.
            activation: A name of `ACTIVATIONS`.
        """
        self.weight, self.bias, self.stride, self.padding, self.activation = weight, bias, stride, padding, activation
        self._activate = ACTIVATIONS[activation]

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what comes of one image of this shape; LayerShapeError if nothing does."""
        outputs, inputs, *kernel = self.weight.shape
        before = self.padding[::2], self.padding[1::2]
        sizes = [length + sum(around) - size for length, around, size in zip(shape, zip(*before, strict=True), kernel, strict=False)]
        if len(shape) != 3 or shape[-1] != inputs or min(sizes) < 0:
            raise LayerShapeError(f"expected a weight for images of shape {list(shape)}, received {list(self.weight.shape)}")
        return (*(size // step + 1 for size, step in zip(sizes, self.stride, strict=True)), outputs)

    def __call__(self, rows: Array) -> Array:
        """Return [..., height, width, outputs] from [..., height, width, inputs]."""
        outputs, _, *kernel = self.weight.shape
        top, bottom, left, right = self.padding
        padded = np.pad(rows, ((0, 0),) * (rows.ndim - 3) + ((top, bottom), (left, right), (0, 0)))
        windows = sliding_window_view(padded, tuple(kernel), axis=(-3, -2))[..., :: self.stride[0], :: self.stride[1], :, :, :]
        flat = windows.reshape(*windows.shape[:-3], -1)  # a copy, in the order of the weight's axes
        out: Array = flat.dot(self.weight.reshape(outputs, -1).T)
        if self.bias is not None:
            out += self.bias
        if self._activate is not None:
            self._activate(out, out)
        return out


class FlattenImage:
    """The numbers of an image in one row."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of what comes of one image of this shape; LayerShapeError if nothing does."""
        if len(shape) != 3:
            raise LayerShapeError(f"expected an image to flatten, received shape {list(shape)}")
        return (int(np.prod(shape, dtype=np.int64)),)

    def __call__(self, rows: Array) -> Array:
        """Return [..., height * width * channels]."""
        return rows.reshape(*rows.shape[:-3], -1)


Layer = Dense | LayerNorm | Convolution | FlattenImage


class Lstm:
    """An LSTM of one layer, for one step of each sequence.

    The four gates are one product, and one tanh serves them all: sigmoid(x) = (1 + tanh(x / 2)) / 2, with the halves in the weights.
    """

    def __init__(self, size: int, inputs: int) -> None:
        """Make room for the weights, which `load` brings."""
        self.size, self.inputs = size, inputs
        self.weight = np.empty((inputs + size, 4 * size), np.float32)
        """The products of the gates, halved but for the candidate's: of the inputs, then of the output before. Gates in PyTorch's order."""
        self.bias = np.empty(4 * size, np.float32)
        """Of the gates, likewise."""
        self._halves = np.ones(4 * size, np.float32)
        self._halves[: 2 * size] = self._halves[3 * size :] = 0.5  # the input, forget and output gates, around the candidate

    def load(self, of_inputs: Array, of_outputs: Array, bias: Array) -> None:
        """Take weights over.

        Args:
            of_inputs: float32[4 * size, inputs]: gate by gate, input, forget, candidate and output, as PyTorch's LSTM has them.
            of_outputs: Likewise, float32[4 * size, size], of the output of the step before.
            bias: The sum of both biases, float32[4 * size].
        """
        self.weight[: self.inputs] = of_inputs.T
        self.weight[self.inputs :] = of_outputs.T
        self.weight *= self._halves
        self.bias[:] = bias * self._halves

    def weights(self) -> tuple[Array, Array, Array]:
        """Return what `load` took; halving and doubling are exact."""
        weight = self.weight / self._halves
        return weight[: self.inputs].T, weight[self.inputs :].T, self.bias / self._halves

    def __call__(self, rows: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Return the output h and the cell's state c after the step, [..., size] both, from the inputs, [..., inputs], and those before."""
        size = self.size
        gates = np.concatenate((rows, h), axis=-1).dot(self.weight)
        gates += self.bias
        np.tanh(gates, gates)
        candidate = gates[..., 2 * size : 3 * size].copy()
        gates += 1.0
        gates *= 0.5
        c = gates[..., size : 2 * size] * c
        candidate *= gates[..., :size]
        c += candidate
        h = np.tanh(c)
        h *= gates[..., 3 * size :]
        return h, c
