"""The client of the policy server. Imports policyserver only; needs neither ray nor torch."""

from __future__ import annotations

from client.config import ClientConfig
from client.errors import BatchError, EncryptionError, ForkedClientError, InsecureTargetError
from client.policy_client import PolicyClient
from client.reports import ClientCounters, ServerInfo, ServerStats, TrainingIteration, total_of
from policyserver.errors import (
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
    SequenceError,
    ServerEndedError,
    ServerInternalError,
    ServerOverloadedError,
    ServerUnavailableError,
)

__all__ = [
    "ActionTimeoutError",
    "AuthenticationError",
    "BatchError",
    "ClientClosedError",
    "ClientConfig",
    "ClientCounters",
    "EncryptionError",
    "EpisodeDuplicateError",
    "EpisodeError",
    "EpisodeFinishedError",
    "EpisodeLostError",
    "EpisodeUnknownError",
    "ForkedClientError",
    "HandshakeError",
    "InsecureTargetError",
    "InvalidInputError",
    "PolicyClient",
    "PolicyServerError",
    "SequenceError",
    "ServerEndedError",
    "ServerInfo",
    "ServerInternalError",
    "ServerOverloadedError",
    "ServerStats",
    "ServerUnavailableError",
    "TrainingIteration",
    "total_of",
]
