"""The errors of both ends of the wire.

    PolicyServerError                    code, reason, field, message; pickles
      EpisodeError (ValueError)          this episode cannot do that; the others go on
        EpisodeUnknownError              never started here, or forgotten long ago
        EpisodeFinishedError             it has ended, by its client or (reason EPISODE_IDLE) by the server
        EpisodeLostError                 the server restarted: start a new episode
        EpisodeDuplicateError            that id is open already
        SequenceError                    a step out of order, or one number with two contents
        PolicyUnknownError               the server has no policy of that name
      InvalidInputError (ValueError)     wrong shape, dtype or value; nothing was changed
      ActionTimeoutError (TimeoutError)  no answer in time; the episode goes on
      ServerUnavailableError (ConnectionError)
        ServerEndedError                 it has ended for good: no successor comes by itself
      ServerOverloadedError              too many episodes, or the learner is behind: try again later
      HandshakeError                     protocol version or spaces differ
      AuthenticationError                no token, or a wrong one
      ServerInternalError                a mistake of the server; its log has the incident id
      ClientClosedError (RuntimeError)   the client was closed
    WireError (ValueError)               bytes that are no valid message of this protocol

The server raises them, `reason_and_code_of` says how they travel, and `from_row_error` and `from_rpc_error` raise them again at the
client. A row's error has its reason and field in the message; a call's has them in the trailing metadata.
"""

from __future__ import annotations

from typing import ClassVar

import grpc

from policyserver.v1 import policy_service_pb2 as pb


class PolicyServerError(Exception):
    """Base of all errors of the client and of the service.

    Attributes:
        message: what was expected, what came, what to do.
        code: the gRPC status it travels as; None for errors that never travel.
        reason: name of the protocol's Reason without its prefix, such as "EPISODE_UNKNOWN"; empty if the error has no reason.
        field: the offending argument, such as "observation"; in a message "observations[0]". Empty if no single one is to blame.
    """

    default_code: ClassVar[grpc.StatusCode | None] = None
    default_reason: ClassVar[str] = ""

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, reason: str = "", field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.code = code or _CODE_OF_REASON.get(self.reason, self.default_code)
        self.field = field


class EpisodeError(PolicyServerError, ValueError):
    """An episode cannot do what was asked; the others go on. A ValueError, as RLlib raises in its place."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class EpisodeUnknownError(EpisodeError):
    """The server does not know the episode: it was never started here, or it was forgotten long ago. Start a new episode."""

    default_reason = "EPISODE_UNKNOWN"


class EpisodeFinishedError(EpisodeError):
    """The episode has ended, by its client or because nothing was heard of it for too long. Start a new episode."""

    default_reason = "EPISODE_FINISHED"


class EpisodeLostError(EpisodeError):
    """The server that held the episode is gone; a new one serves. Start a new episode."""


class EpisodeDuplicateError(EpisodeError):
    """An episode of this id is open already. End that one, or choose another id."""

    default_reason = "EPISODE_DUPLICATE"


class SequenceError(EpisodeError):
    """A step out of order, or one number with two contents. End the episode, and keep the calls of each episode in one thread."""

    default_reason = "SEQUENCE_GAP"


class PolicyUnknownError(EpisodeError):
    """The server has no policy of the name that the episode wants, or can't serve it in that way. Name another one, or have it loaded."""

    default_reason = "POLICY_UNKNOWN"


class InvalidInputError(PolicyServerError, ValueError):
    """A value of the wrong shape, dtype or range. Nothing was changed: correct the value that `field` names, and call again."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "BAD_MESSAGE"


class ActionTimeoutError(PolicyServerError, TimeoutError):
    """No answer in time. The episode goes on: ask again, or log the action that was taken instead."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class ServerUnavailableError(PolicyServerError, ConnectionError):
    """The server cannot be reached, or is shutting down. Call again: the client reconnects by itself."""

    default_code = grpc.StatusCode.UNAVAILABLE


class ServerEndedError(ServerUnavailableError):
    """The server has ended for good: no successor comes by itself. Once a server is there again, a client goes on by itself."""

    default_reason = "SERVER_ENDED"


class ServerOverloadedError(PolicyServerError):
    """The server holds as many episodes as it may, or its learner is behind. Try again later."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class HandshakeError(PolicyServerError):
    """Client and server differ in protocol version or spaces. Install one version at both ends, or correct the spaces that differ."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "HANDSHAKE_MISMATCH"


class AuthenticationError(PolicyServerError):
    """The server expects a token and received none, or a wrong one. Give the client the server's token by `token_file`."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class ServerInternalError(PolicyServerError):
    """A mistake of the server. Its log has the details under the incident id in the message: please report it with them."""

    default_code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


class ClientClosedError(PolicyServerError, RuntimeError):
    """The client was closed, before the call or while it waited. Make a new client, or close this one later."""


class WireError(ValueError):
    """Bytes that are no valid message of this protocol. `field` names the offending one."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


_Code = grpc.StatusCode
_REASONS: tuple[tuple[str, grpc.StatusCode, type[PolicyServerError]], ...] = (
    ("EPISODE_UNKNOWN", _Code.NOT_FOUND, EpisodeUnknownError),
    ("EPISODE_FINISHED", _Code.FAILED_PRECONDITION, EpisodeFinishedError),
    ("EPISODE_IDLE", _Code.FAILED_PRECONDITION, EpisodeFinishedError),
    ("EPISODE_DUPLICATE", _Code.ALREADY_EXISTS, EpisodeDuplicateError),
    ("SEQUENCE_GAP", _Code.OUT_OF_RANGE, SequenceError),
    ("SEQUENCE_CONFLICT", _Code.ALREADY_EXISTS, SequenceError),
    ("BAD_OBSERVATION", _Code.INVALID_ARGUMENT, InvalidInputError),
    ("BAD_ACTION", _Code.INVALID_ARGUMENT, InvalidInputError),
    ("BAD_REWARD", _Code.INVALID_ARGUMENT, InvalidInputError),
    ("BAD_MESSAGE", _Code.INVALID_ARGUMENT, InvalidInputError),
    ("TOO_MANY_EPISODES", _Code.RESOURCE_EXHAUSTED, ServerOverloadedError),
    ("LEARNER_BEHIND", _Code.RESOURCE_EXHAUSTED, ServerOverloadedError),
    ("SHUTTING_DOWN", _Code.UNAVAILABLE, ServerUnavailableError),
    ("HANDSHAKE_MISMATCH", _Code.FAILED_PRECONDITION, HandshakeError),
    ("INTERNAL", _Code.INTERNAL, ServerInternalError),
    ("SERVER_ENDED", _Code.UNAVAILABLE, ServerEndedError),
    ("POLICY_UNKNOWN", _Code.NOT_FOUND, PolicyUnknownError),
    ("TOO_MANY_VERSIONS", _Code.RESOURCE_EXHAUSTED, ServerOverloadedError),
)
_CODE_OF_REASON = {reason: code for reason, code, _ in _REASONS}
_CLASS_OF_REASON = {reason: cls for reason, _, cls in _REASONS}
_CLASS_OF_CODE: dict[grpc.StatusCode, type[PolicyServerError]] = {
    _Code.OK: ServerInternalError,  # an error that calls itself OK is a mistake too
    _Code.CANCELLED: ServerUnavailableError,
    _Code.UNKNOWN: ServerInternalError,
    _Code.INVALID_ARGUMENT: InvalidInputError,
    _Code.DEADLINE_EXCEEDED: ActionTimeoutError,
    _Code.NOT_FOUND: EpisodeUnknownError,
    _Code.ALREADY_EXISTS: EpisodeDuplicateError,
    _Code.PERMISSION_DENIED: AuthenticationError,
    _Code.UNAUTHENTICATED: AuthenticationError,
    _Code.RESOURCE_EXHAUSTED: ServerOverloadedError,
    _Code.FAILED_PRECONDITION: EpisodeFinishedError,
    _Code.ABORTED: ServerUnavailableError,
    _Code.OUT_OF_RANGE: SequenceError,
    _Code.UNIMPLEMENTED: HandshakeError,
    _Code.INTERNAL: ServerInternalError,
    _Code.UNAVAILABLE: ServerUnavailableError,
    _Code.DATA_LOSS: ServerInternalError,
}
_CODE_OF_NUMBER = {code.value[0]: code for code in _Code}
_REASON_KEY = "policyserver-reason"
_FIELD_KEY = "policyserver-field"


def reason_and_code_of(error: BaseException) -> tuple[int, grpc.StatusCode]:
    """Say how an error travels: the protocol's Reason and the gRPC status. Anything that is not ours is INTERNAL."""
    if isinstance(error, WireError):
        return pb.REASON_BAD_MESSAGE, _Code.INVALID_ARGUMENT
    if not isinstance(error, PolicyServerError):
        return pb.REASON_INTERNAL, _Code.INTERNAL
    reason = pb.Reason.Value(f"REASON_{error.reason or 'UNSPECIFIED'}")
    return reason, error.code or _Code.INTERNAL


def to_row_error(row: int, error: BaseException) -> pb.RowError:
    """Encode why a row was refused. The text of an error that is not ours stays here."""
    reason, code = reason_and_code_of(error)
    ours = isinstance(error, PolicyServerError | WireError)
    message = str(error) if ours else "the server made a mistake; its log has the details"
    return pb.RowError(row=row, code=code.value[0], reason=reason, field=getattr(error, "field", ""), message=message)  # type: ignore[arg-type]


def from_row_error(error: pb.RowError) -> PolicyServerError:
    """Decode why a row was refused."""
    reason = pb.Reason.Name(error.reason).removeprefix("REASON_") if error.reason in pb.Reason.values() else ""
    return _make(_CODE_OF_NUMBER.get(error.code, _Code.UNKNOWN), reason, error.field, error.message)


def to_metadata(error: BaseException) -> tuple[tuple[str, str], ...]:
    """Encode reason and field as the trailing metadata of a failed call, for `context.abort`."""
    reason, _ = reason_and_code_of(error)
    field = getattr(error, "field", "").encode("ascii", "backslashreplace").decode()
    return (_REASON_KEY, pb.Reason.Name(reason).removeprefix("REASON_")), (_FIELD_KEY, field)


def from_rpc_error(error: grpc.RpcError) -> PolicyServerError:
    """Decode a failed call."""
    code, details, metadata = (getattr(error, name, lambda: None)() for name in ("code", "details", "trailing_metadata"))
    told = dict(metadata or ())
    return _make(code or _Code.UNKNOWN, str(told.get(_REASON_KEY, "")), str(told.get(_FIELD_KEY, "")), details or str(error))


def _make(code: grpc.StatusCode, reason: str, field: str, message: str) -> PolicyServerError:
    """Build the error of a reason this side knows, else of the status."""
    if reason in _CLASS_OF_REASON:
        return _CLASS_OF_REASON[reason](message, code=code, reason=reason, field=field)
    cls = _CLASS_OF_CODE[code]
    return cls(message, code=code, field=field)
