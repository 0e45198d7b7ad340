"""RLlib's default actor nets in plain numpy: for the few rows of a usual batch, several times as fast as torch's eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.models.torch.base import TorchModel
from ray.rllib.core.models.torch.encoder import TorchActorCriticEncoder, TorchLSTMEncoder, TorchMLPEncoder, TorchStatefulActorCriticEncoder
from ray.rllib.core.models.torch.heads import TorchMLPHead
from torch import nn

from policyserver.common.spaces import Array

Layer = Callable[[Array], Array]


class _NotKnownError(Exception):
    """A part of a net that is not written out here."""


class _Dense:
    """A linear layer, with the activation that follows it."""

    def __init__(self, linear: nn.Linear, activation: Callable[[Array, Array], Any] | None) -> None:
        # Views of the module's own memory, which loading weights writes into.
        self._weight = linear.weight.detach().numpy().T
        self._bias = linear.bias.detach().numpy() if linear.bias is not None else None
        self._activation = activation

    def __call__(self, rows: Array) -> Array:
        out: Array = rows @ self._weight
        if self._bias is not None:
            out += self._bias
        if self._activation is not None:
            self._activation(out, out)
        return out


class _Lstm:
    """An LSTM of one layer, for one step of each sequence.

    The four gates are one product, and one tanh serves them all: sigmoid(x) = (1 + tanh(x / 2)) / 2, with the halves in the weights.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        if lstm.num_layers != 1 or lstm.bidirectional or lstm.proj_size or not lstm.bias:
            raise _NotKnownError
        self._lstm = lstm
        self.size = size = int(lstm.hidden_size)
        self._weight = np.empty((lstm.input_size + size, 4 * size), np.float32)
        self._bias = np.empty(4 * size, np.float32)
        self._halves = np.ones(4 * size, np.float32)
        self._halves[: 2 * size] = self._halves[3 * size :] = 0.5  # the input, forget and output gates, around the candidate
        self.refresh()

    def refresh(self) -> None:
        """Take the module's weights over, after they have changed."""
        inputs = self._lstm.input_size
        weights = {name: parameter.detach().numpy() for name, parameter in self._lstm.named_parameters()}
        self._weight[:inputs] = weights["weight_ih_l0"].T
        self._weight[inputs:] = weights["weight_hh_l0"].T
        self._weight *= self._halves
        self._bias[:] = (weights["bias_ih_l0"] + weights["bias_hh_l0"]) * self._halves

    def __call__(self, rows: Array, h: Array, c: Array) -> tuple[Array, Array]:
        size = self.size
        gates = np.concatenate((rows, h), axis=1) @ self._weight
        gates += self._bias
        np.tanh(gates, gates)
        candidate = gates[:, 2 * size : 3 * size].copy()
        gates += 1.0
        gates *= 0.5
        c = gates[:, size : 2 * size] * c
        candidate *= gates[:, :size]
        c += candidate
        h = np.tanh(c)
        h *= gates[:, 3 * size :]
        return h, c


class NumpyForward:
    """The forward pass of an actor whose parts are RLlib's own: dense layers, with or without an LSTM of one layer.

    It reads the module's weights where they lie, apart from those of an LSTM: call `refresh` when they have been loaded.
    """

    def __init__(self, module: DefaultPPOTorchRLModule) -> None:
        self._head = _dense_layers(_exactly(module.pi, TorchMLPHead).net.mlp)
        # The second half of a Gaussian's inputs are logarithms of standard deviations, which RLlib keeps within bounds.
        self._log_std_bound = float(module.pi.log_std_clip_param[0]) if module.pi.clip_log_std else None
        encoder = module.encoder
        self._recurrent: list[tuple[list[Layer], _Lstm]] = []
        self._encoder: list[Layer] = []
        if type(encoder) is TorchActorCriticEncoder:
            actor_encoder = encoder.encoder if encoder.config.shared else encoder.actor_encoder
            self._encoder = _dense_layers(_exactly(actor_encoder, TorchMLPEncoder).net.mlp)
        elif type(encoder) is TorchStatefulActorCriticEncoder:
            # Apart, the critic's state is carried along, too: its learner begins with it.
            parts = [encoder.encoder] if encoder.config.shared else [encoder.actor_encoder, encoder.critic_encoder]
            for part in parts:
                tokenizer = _exactly(part, TorchLSTMEncoder).tokenizer
                layers = [] if tokenizer is None else _dense_layers(_exactly(tokenizer, TorchMLPEncoder).net.mlp)
                self._recurrent.append((layers, _Lstm(part.lstm)))
        else:
            raise _NotKnownError

    @classmethod
    def of(cls, module: Any) -> NumpyForward | None:
        """Write a module out; None if it has parts that this doesn't know, or may do something else than RLlib's own."""
        if getattr(type(module), "_forward", None) is not DefaultPPOTorchRLModule._forward:
            return None
        for name in ("_forward_exploration", "_forward_inference"):
            if getattr(type(module), name) is not getattr(DefaultPPOTorchRLModule, name):
                return None
        try:
            return cls(module)
        except (_NotKnownError, AttributeError):
            return None

    def refresh(self) -> None:
        """Take the module's weights over, after they have changed."""
        for _, lstm in self._recurrent:
            lstm.refresh()

    def __call__(self, observations: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        """Run the pass.

        Args:
            observations: [n, d].
            state: The recurrent state, as `tree.flatten` orders it: c and h, float32[n, 1, size] each, of the actor, then of the critic.

        Returns:
            The action distribution's inputs, float32[n, k], and the state after the step, like `state`.
        """
        with np.errstate(all="ignore"):  # what weights that are no numbers give is found in the result
            return self._run(np.asarray(observations, np.float32), state)

    def _run(self, rows: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        if not self._recurrent:
            for layer in self._encoder:
                rows = layer(rows)
            return self._through_head(rows), []
        after: list[Array] = []
        actor: Array = rows
        for number, (layers, lstm) in enumerate(self._recurrent):
            features = rows
            for layer in layers:
                features = layer(features)
            h, c = lstm(features, state[2 * number + 1][:, 0], state[2 * number][:, 0])
            after += [c[:, None], h[:, None]]
            actor = h if number == 0 else actor
        return self._through_head(actor), after

    def _through_head(self, rows: Array) -> Array:
        for layer in self._head:
            rows = layer(rows)
        if self._log_std_bound is not None:
            log_stds = rows[:, rows.shape[1] // 2 :]
            np.clip(log_stds, -self._log_std_bound, self._log_std_bound, out=log_stds)
        return rows


def _exactly(model: TorchModel, kind: type) -> Any:
    if type(model) is not kind:
        raise _NotKnownError
    return model


def _relu(rows: Array, out: Array) -> None:
    np.maximum(rows, 0.0, out=out)


_ACTIVATIONS: dict[type, Callable[[Array, Array], Any] | None] = {nn.Tanh: np.tanh, nn.ReLU: _relu, nn.Identity: None}


def _dense_layers(sequence: nn.Sequential) -> list[Layer]:
    """Write linear layers out, each together with its activation."""
    layers: list[Layer] = []
    parts = list(sequence)
    while parts:
        linear = parts.pop(0)
        if type(linear) is not nn.Linear:
            raise _NotKnownError
        activation = None
        if parts and type(parts[0]) is not nn.Linear:
            if type(parts[0]) not in _ACTIVATIONS:
                raise _NotKnownError
            activation = _ACTIVATIONS[type(parts.pop(0))]
        layers.append(_Dense(linear, activation))
    return layers
