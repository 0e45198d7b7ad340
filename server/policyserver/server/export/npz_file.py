"""Writes a policy as plain arrays with a description, see `policy_file.proto`, for `policyserver.client.LocalPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from policyserver.common.acting.layers import Convolution, Dense, Layer, LayerNorm, Lstm
from policyserver.common.policy_format import ACTIVATIONS, DESCRIPTION, FORMAT_VERSION
from policyserver.common.spaces import Array, to_proto
from policyserver.server.export.portable import PortablePolicy
from policyserver.server.policies.vectorized.mean_std_filter import VectorizedMeanStdFilter
from policyserver.server.policies.vectorized.observation_connectors import VectorizedConnector, VectorizedFlatten
from policyserver.v1 import policy_file_pb2 as pb

_NUMBERS = {name: number for number, name in ACTIVATIONS.items()}


def write_npz(policy: PortablePolicy, path: Path) -> None:
    """Write a policy.

    Raises:
        OSError: The file can't be written.
    """
    arrays = _Arrays()
    text = json_format.MessageToJson(arrays.description(policy), preserving_proto_field_name=True)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **{DESCRIPTION: np.frombuffer(text.encode(), np.uint8)}, **arrays.named)


class _Arrays:
    """Describes the parts of a policy, and names their arrays."""

    def __init__(self) -> None:
        self.named: dict[str, Array] = {}

    def description(self, policy: PortablePolicy) -> pb.PolicyDescription:
        trained, built = policy.trained, policy.trained.built
        rewrites = [self._rewrite(connector, f"rewrites.{number}") for number, connector in enumerate(policy.connectors)]
        if policy.num_frames > 1:
            rewrites.append(pb.ObservationRewrite(stack_frames=pb.StackFramesRewrite(num_frames=policy.num_frames)))
        return pb.PolicyDescription(
            format_version=FORMAT_VERSION,
            origin=pb.PolicyOrigin(
                run=trained.config.run,
                algorithm=trained.config.algorithm.name,
                checkpoint=trained.checkpoint.number,
                weights_seq_no=trained.checkpoint.progress.weights_seq_no,
            ),
            observation_space=to_proto(built.observation_space),
            action_space=to_proto(built.action_space),
            rewrites=rewrites,
            net=self._net(policy),
            distribution=policy.distribution,  # type: ignore[arg-type]  # a number stands for the enum's
            epsilon=policy.epsilon,
            normalize_actions=built.normalize_actions,
            clip_actions=built.clip_actions,
        )

    def _rewrite(self, connector: VectorizedConnector, where: str) -> pb.ObservationRewrite:
        match connector:
            case VectorizedFlatten():
                return pb.ObservationRewrite(flatten=pb.FlattenRewrite(keys_to_remove=sorted(connector.keys_to_remove)))
            case VectorizedMeanStdFilter():
                frozen = connector.frozen()
                mean_std = pb.MeanStdRewrite(
                    mean=self._named(f"{where}.mean", frozen.mean, np.float64),
                    deviation=self._named(f"{where}.deviation", frozen.deviation),
                    demean=frozen.demean,
                    destd=frozen.destd,
                    clip=frozen.clip or None,  # 0 is no bound to RLlib
                )
                return pb.ObservationRewrite(mean_std=mean_std)
        return pb.ObservationRewrite(scale_images=pb.ScaleImagesRewrite())

    def _net(self, policy: PortablePolicy) -> pb.Net:
        net = policy.net
        actor = net.recurrent[0] if net.recurrent else None  # of a critic apart only the learner needs the state
        return pb.Net(
            encoder=self._layers(actor.layers if actor is not None else net.encoder, "encoder"),
            lstm=self._lstm(actor.lstm) if actor is not None else None,
            head=self._layers(net.head, "head"),
            value_head=self._layers(net.value_head, "value_head"),
            log_stds=self._named("log_stds", net.log_stds) if net.log_stds is not None else "",
            log_std_bound=net.log_std_bound,
        )

    def _layers(self, layers: Sequence[Layer], where: str) -> list[pb.Layer]:
        return [self._layer(layer, f"{where}.{number}") for number, layer in enumerate(layers)]

    def _layer(self, layer: Layer, where: str) -> pb.Layer:
        if not isinstance(layer, Dense | LayerNorm | Convolution):
            return pb.Layer(flatten_image=pb.FlattenImageLayer())
        arguments: dict[str, Any] = {
            "weight": self._named(f"{where}.weight", layer.weight),
            "bias": self._named(f"{where}.bias", layer.bias) if layer.bias is not None else "",
            "activation": _NUMBERS[layer.activation],
        }
        match layer:
            case Dense():
                return pb.Layer(dense=pb.DenseLayer(**arguments))
            case LayerNorm():
                return pb.Layer(layer_norm=pb.LayerNormLayer(epsilon=layer.epsilon, **arguments))
        return pb.Layer(convolution=pb.ConvolutionLayer(stride=layer.stride, padding=layer.padding, **arguments))

    def _lstm(self, lstm: Lstm) -> pb.Lstm:
        of_inputs, of_outputs, bias = lstm.weights()
        return pb.Lstm(
            input_weight=self._named("lstm.input_weight", of_inputs),
            output_weight=self._named("lstm.output_weight", of_outputs),
            bias=self._named("lstm.bias", bias),
        )

    def _named(self, name: str, array: Array, dtype: type = np.float32) -> str:
        self.named[name] = np.ascontiguousarray(array, dtype)
        return name
