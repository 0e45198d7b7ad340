"""The forward pass of RLlib's default actors: an encoder, perhaps an LSTM, a head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policyserver.common.acting.layers import Layer, LayerShapeError, Lstm, Shape
from policyserver.common.spaces import Array


@dataclass(frozen=True, slots=True)
class Recurrent:
    """An LSTM with the layers before it."""

    layers: Sequence[Layer]
    lstm: Lstm


@dataclass(frozen=True, slots=True)
class ActorNet:
    """An actor of RLlib's own parts."""

    encoder: Sequence[Layer]
    """The layers before the head; none in a recurrent net."""
    recurrent: Sequence[Recurrent]
    """The LSTM before the head, and such as are carried along beside it."""
    head: Sequence[Layer]
    """The layers that give the action distribution's inputs, or their first half where there are `log_stds`."""
    value_head: Sequence[Layer] = ()
    """Of a dueling net, whose head gives advantages: the layers that give the value, so that Q-values come of both."""
    log_stds: Array | None = None
    """Logarithms of the standard deviations, float32[k], where they don't depend on the observation."""
    log_std_bound: float | None = None
    """How far from 0 the logarithms of standard deviations, the second half of the inputs, may be."""

    def output_size(self, shape: Shape) -> int:
        """Return how many inputs of the distribution come of one observation of this shape; LayerShapeError if none do."""
        shapes = [_through(part.layers, shape) for part in self.recurrent]
        for part, inputs in zip(self.recurrent, shapes, strict=True):
            if inputs != (part.lstm.inputs,):
                raise LayerShapeError(f"expected an LSTM for inputs of shape {list(inputs)}, received one for {part.lstm.inputs}")
        features = (self.recurrent[0].lstm.size,) if self.recurrent else _through(self.encoder, shape)
        outputs = _through(self.head, features)
        if len(outputs) != 1 or (self.value_head and _through(self.value_head, features) != (1,)):
            raise LayerShapeError(f"expected a head that gives a row of numbers, and with it at most one value, received {list(outputs)}")
        return outputs[0] + (len(self.log_stds) if self.log_stds is not None else 0)

    def __call__(self, rows: Array, state: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Run the pass.

        Args:
            rows: Observations, float32[..., *shape]: one, or any leading axes.
            state: The recurrent state: c and h, float32[..., 1, size] each, of each part of `recurrent`.

        Returns:
            The action distribution's inputs, float32[..., k], and the state after the step, like `state`.
        """
        if not self.recurrent:
            for layer in self.encoder:
                rows = layer(rows)
            return self._through_head(rows), []
        after: list[Array] = []
        actor = rows
        for number, part in enumerate(self.recurrent):
            features = rows
            for layer in part.layers:
                features = layer(features)
            h, c = part.lstm(features, state[2 * number + 1][..., 0, :], state[2 * number][..., 0, :])
            after += [c[..., None, :], h[..., None, :]]
            actor = h if number == 0 else actor
        return self._through_head(actor), after

    def _through_head(self, features: Array) -> Array:
        rows = features
        for layer in self.head:
            rows = layer(rows)
        if self.value_head:
            rows -= rows.mean(axis=-1, keepdims=True)
            for layer in self.value_head:
                features = layer(features)
            rows += features
        if self.log_stds is not None:
            rows = np.concatenate((rows, np.broadcast_to(self.log_stds, rows.shape)), axis=-1)
        if self.log_std_bound is not None:
            log_stds = rows[..., rows.shape[-1] // 2 :]
            np.clip(log_stds, -self.log_std_bound, self.log_std_bound, out=log_stds)
        return rows


def _through(layers: Sequence[Layer], shape: Shape) -> Shape:
    for layer in layers:
        shape = layer.output_shape(shape)
    return shape
