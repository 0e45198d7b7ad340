"""The client of the policy server.

Needs the base dependencies alone, neither ray nor torch.

Imports `common`, `common.acting` and `v1`.
"""

from __future__ import annotations

from policyserver.client.array_file import PolicyFileError
from policyserver.client.config import ClientConfig
from policyserver.client.errors import BatchError, EncryptionError, ForkedClientError, InsecureTargetError
from policyserver.client.local_policy import LocalPolicy, LocalState
from policyserver.client.policy_client import PolicyClient
from policyserver.client.policy_file import PolicyOrigin
from policyserver.client.server_info import ClientCounters, EndpointLoad, ServerInfo
from policyserver.common.errors import (
    ActionTimeoutError,
    AuthenticationError,
    ClientClosedError,
    EpisodeDuplicateError,
    EpisodeError,
    EpisodeFinishedError,
    EpisodeLostError,
    EpisodeUnknownError,
    HandshakeError,
    InvalidInputError,
    PolicyServerError,
    PolicyUnknownError,
    SequenceError,
    ServerEndedError,
    ServerInternalError,
    ServerOverloadedError,
    ServerUnavailableError,
)
from policyserver.common.server_stats import PolicyFigures, ServerStats, TrainingIteration

__all__ = [
    "ActionTimeoutError",
    "AuthenticationError",
    "BatchError",
    "ClientClosedError",
    "ClientConfig",
    "ClientCounters",
    "EncryptionError",
    "EndpointLoad",
    "EpisodeDuplicateError",
    "EpisodeError",
    "EpisodeFinishedError",
    "EpisodeLostError",
    "EpisodeUnknownError",
    "ForkedClientError",
    "HandshakeError",
    "InsecureTargetError",
    "InvalidInputError",
    "LocalPolicy",
    "LocalState",
    "PolicyClient",
    "PolicyFigures",
    "PolicyFileError",
    "PolicyOrigin",
    "PolicyServerError",
    "PolicyUnknownError",
    "SequenceError",
    "ServerEndedError",
    "ServerInfo",
    "ServerInternalError",
    "ServerOverloadedError",
    "ServerStats",
    "ServerUnavailableError",
    "TrainingIteration",
]
