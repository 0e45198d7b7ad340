"""RLlib's default actor nets in plain numpy: for the few rows of a usual batch, several times as fast as torch's eager mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core.models.torch.encoder import (
    TorchActorCriticEncoder,
    TorchCNNEncoder,
    TorchLSTMEncoder,
    TorchMLPEncoder,
    TorchStatefulActorCriticEncoder,
)
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead, TorchMLPHead
from ray.rllib.core.models.torch.primitives import TorchCNN
from torch import nn

from policyserver.common.acting.actor_net import ActorNet, Recurrent
from policyserver.common.acting.layers import Convolution, Dense, FlattenImage, Layer, LayerNorm, Lstm
from policyserver.common.spaces import Array


class UnknownPartError(Exception):
    """A part of a net that is not written out here; the text names it."""


_ACTIVATIONS: dict[type, str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.SiLU: "silu", nn.Identity: "linear"}
_KINDS = (DefaultPPOTorchRLModule, DefaultSACTorchRLModule, DefaultDQNTorchRLModule)
_PASSES = ("_forward", "_forward_exploration", "_forward_inference", "compute_q_values", "_qf_forward_helper")


class WrittenOut:
    """A module's net in numpy. It reads the weights where they lie, apart from those of an LSTM: `refresh` when they have been loaded."""

    def __init__(self, module: Any) -> None:
        """Write a module of RLlib's PPO, APPO, IMPALA, SAC or DQN out.

        Raises:
            UnknownPartError: It has parts that this doesn't know, or may do something else than RLlib's own.
        """
        self._lstms: list[tuple[Lstm, nn.LSTM]] = []
        kind = next(
            (kind for kind in (DefaultPPOTorchRLModule, DefaultSACTorchRLModule, DefaultDQNTorchRLModule) if _passes_as(module, kind)), None
        )
        if kind is DefaultPPOTorchRLModule:
            self.net = self._actor_critic(module)
        elif kind is DefaultSACTorchRLModule:
            self.net = ActorNet(_layers(module.pi_encoder), (), *_head(module.pi))
        elif kind is DefaultDQNTorchRLModule:
            self.net = _q_net(module)
        else:
            raise UnknownPartError(f"the module {type(module).__name__}")

    def refresh(self) -> None:
        """Take the module's weights over, after they have changed."""
        for ours, theirs in self._lstms:
            weights = {name: parameter.detach().numpy() for name, parameter in theirs.named_parameters()}
            ours.load(weights["weight_ih_l0"], weights["weight_hh_l0"], weights["bias_ih_l0"] + weights["bias_hh_l0"])

    def _actor_critic(self, module: DefaultPPOTorchRLModule) -> ActorNet:
        encoder = module.encoder
        if type(encoder) is TorchActorCriticEncoder:
            return ActorNet(_layers(encoder.encoder if encoder.config.shared else encoder.actor_encoder), (), *_head(module.pi))
        if type(encoder) is not TorchStatefulActorCriticEncoder:
            raise UnknownPartError(f"the encoder {type(encoder).__name__}")
        # Apart, the critic's state is carried along, too: its learner begins with it.
        parts = [encoder.encoder] if encoder.config.shared else [encoder.actor_encoder, encoder.critic_encoder]
        return ActorNet((), [self._recurrent(part) for part in parts], *_head(module.pi))

    def _recurrent(self, part: Any) -> Recurrent:
        if type(part) is not TorchLSTMEncoder:
            raise UnknownPartError(f"the encoder {type(part).__name__}")
        theirs = part.lstm
        if theirs.num_layers != 1 or theirs.bidirectional or theirs.proj_size or not theirs.bias:
            raise UnknownPartError("an LSTM of other than one plain layer with a bias")
        ours = Lstm(int(theirs.hidden_size), int(theirs.input_size))
        self._lstms.append((ours, theirs))
        self.refresh()
        return Recurrent([] if part.tokenizer is None else _layers(part.tokenizer), ours)


class NumpyForward:
    """The pass of an actor for whole batches, where numpy may be the faster way: dense layers, with or without an LSTM of one layer."""

    def __init__(self, written_out: WrittenOut) -> None:
        self.refresh, self._net = written_out.refresh, written_out.net

    @classmethod
    def of(cls, module: Any) -> NumpyForward | None:
        """Write a module out; None if it has parts that this doesn't know, or in which torch is the faster way in any case."""
        if not isinstance(module, DefaultPPOTorchRLModule):
            return None
        try:
            written_out = WrittenOut(module)
        except (UnknownPartError, AttributeError):
            return None
        has_images = any(isinstance(layer, Convolution) for layer in _encoder_layers(written_out.net))
        return None if has_images else cls(written_out)

    def __call__(self, observations: Array, state: list[Array]) -> tuple[Array, list[Array]]:
        """Run the pass.

        Args:
            observations: [n, d].
            state: The recurrent state, as `tree.flatten` orders it: c and h, float32[n, 1, size] each, of the actor, then of the critic.

        Returns:
            The action distribution's inputs, float32[n, k], and the state after the step, like `state`.
        """
        with np.errstate(all="ignore"):  # what weights that are no numbers give is found in the result
            return self._net(np.asarray(observations, np.float32), state)


def _passes_as(module: Any, kind: type) -> bool:
    """Tell whether a module's passes are those of one of RLlib's own."""
    return isinstance(module, kind) and all(getattr(type(module), name, None) is getattr(kind, name, None) for name in _PASSES)


def _q_net(module: DefaultDQNTorchRLModule) -> ActorNet:
    """Write a net out that gives Q-values."""
    if module.num_atoms > 1:
        raise UnknownPartError(f"a distribution of Q-values (num_atoms = {module.num_atoms})")
    value_head = _head(module.vf)[0] if module.uses_dueling else ()
    return ActorNet(_layers(module.encoder), (), _head(module.af)[0], value_head)


def _head(head: Any) -> tuple[list[Layer], tuple[()], Array | None, float | None]:
    """Return a head's layers and, of a Gaussian, the standard deviations' free logarithms, and the bound of them all."""
    if type(head) not in (TorchMLPHead, TorchFreeLogStdMLPHead):
        raise UnknownPartError(f"the head {type(head).__name__}")
    log_stds = head.log_std.detach().numpy() if type(head) is TorchFreeLogStdMLPHead else None
    return list(_written(head.net.mlp)), (), log_stds, float(head.log_std_clip_param[0]) if head.clip_log_std else None


def _layers(encoder: Any) -> list[Layer]:
    if type(encoder) is TorchMLPEncoder:
        return list(_written(encoder.net.mlp))
    if type(encoder) is TorchCNNEncoder:
        cnn, *rest = list(encoder.net)
        if type(cnn) is TorchCNN and all(type(part) is nn.Flatten for part in rest):
            return [*_written(cnn.cnn), *(FlattenImage() for _ in rest)]
    raise UnknownPartError(f"the encoder {type(encoder).__name__}")


def _encoder_layers(net: ActorNet) -> Iterator[Layer]:
    yield from net.encoder
    for part in net.recurrent:
        yield from part.layers


def _written(sequence: nn.Sequential) -> Iterator[Layer]:
    """Write layers out, each together with its activation. Their arrays are views of the module's own memory, which loading writes into."""
    parts = list(sequence)
    while parts:
        padding, layer = (0, 0, 0, 0), parts.pop(0)
        if type(layer) is nn.ZeroPad2d:
            left, right, top, bottom = layer.padding  # of the last axis, then of the one before it
            padding, layer = (top, bottom, left, right), parts.pop(0)
        activation = _ACTIVATIONS[type(parts.pop(0))] if parts and type(parts[0]) in _ACTIVATIONS else "linear"
        if type(layer) is nn.Linear:
            yield Dense(_array(layer.weight).T, _array(layer.bias), activation)
        elif type(layer) is nn.Conv2d and layer.dilation == (1, 1) and layer.groups == 1 and layer.padding == (0, 0):
            yield Convolution(_array(layer.weight), _array(layer.bias), layer.stride, padding, activation)
        elif type(layer) is nn.LayerNorm and len(layer.normalized_shape) == 1:
            yield LayerNorm(_array(layer.weight), _array(layer.bias), layer.eps, activation)
        else:
            raise UnknownPartError(f"the layer {type(layer).__name__}")


def _array(parameter: Any) -> Any:
    return parameter.detach().numpy() if parameter is not None else None
