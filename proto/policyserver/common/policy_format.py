"""What the writer and the reader of a policy's file, see `policy_file.proto`, have in common."""

from __future__ import annotations

from policyserver.v1 import policy_file_pb2 as pb

FORMAT_VERSION = 1
DESCRIPTION = "description"
"""Name of the array that holds the description."""

ACTIVATIONS = {
    pb.ACTIVATION_UNSPECIFIED: "linear",
    pb.ACTIVATION_TANH: "tanh",
    pb.ACTIVATION_RELU: "relu",
    pb.ACTIVATION_SILU: "silu",
}
"""The names by which `common.acting.layers` knows them."""
