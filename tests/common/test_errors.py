"""Every status code and reason is an error of ours that crosses wire and pickle unchanged; a foreign exception's text stays behind."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest

from policyserver.common import errors
from policyserver.v1 import policy_service_pb2 as pb


class FailedCall(grpc.RpcError):
    """What grpc raises, in the part that is read."""

    def __init__(self, code: grpc.StatusCode, details: str = "details", metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._metadata


ALL = [value for name, value in vars(errors).items() if name.endswith("Error") and value.__module__ == errors.__name__]
REASONS = [value for value in pb.Reason.values() if value != pb.REASON_UNSPECIFIED]


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_code_becomes_an_error_of_ours_that_keeps_it(code: grpc.StatusCode) -> None:
    error = errors.from_rpc_error(FailedCall(code))
    assert type(error) is not errors.PolicyServerError
    assert error.code is code
    assert error.message == "details"


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_goes_out_and_comes_back_as_the_same_error(reason: int) -> None:
    sent = errors.from_row_error(pb.RowError(row=3, code=13, reason=reason, field="f", message="m"))  # type: ignore[arg-type]
    assert sent.reason == pb.Reason.Name(reason).removeprefix("REASON_")
    received = errors.from_row_error(errors.to_row_error(7, sent))
    assert (type(received), received.reason, received.field, received.message) == (type(sent), sent.reason, "f", "m")
    by_call = errors.from_rpc_error(FailedCall(grpc.StatusCode.INTERNAL, "m", errors.to_metadata(sent)))
    assert (type(by_call), by_call.reason, by_call.field) == (type(sent), sent.reason, "f")


def test_an_error_raised_without_a_code_travels_with_that_of_its_reason() -> None:
    assert errors.reason_and_code_of(errors.EpisodeUnknownError("x")) == (pb.REASON_EPISODE_UNKNOWN, grpc.StatusCode.NOT_FOUND)
    conflict = errors.SequenceError("x", reason="SEQUENCE_CONFLICT")
    assert errors.reason_and_code_of(conflict) == (pb.REASON_SEQUENCE_CONFLICT, grpc.StatusCode.ALREADY_EXISTS)
    assert errors.reason_and_code_of(errors.WireError("x")) == (pb.REASON_BAD_MESSAGE, grpc.StatusCode.INVALID_ARGUMENT)


def test_the_text_of_a_foreign_exception_does_not_leave_the_server() -> None:
    sent = errors.to_row_error(0, KeyError("secret"))
    assert "secret" not in sent.message
    assert (sent.reason, sent.code) == (pb.REASON_INTERNAL, grpc.StatusCode.INTERNAL.value[0])


@pytest.mark.parametrize("cls", ALL)
def test_every_error_pickles_with_its_attributes(cls: type[Exception]) -> None:
    error = cls("m", field="f") if cls is errors.WireError else cls("m", field="f", code=grpc.StatusCode.ABORTED, reason="INTERNAL")  # type: ignore[call-arg]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == "m"
    assert vars(copy) == vars(error)


def test_an_unknown_reason_of_a_newer_server_falls_back_to_the_code() -> None:
    error = errors.from_row_error(pb.RowError(code=5, reason=99, message="m"))  # type: ignore[arg-type]
    assert type(error) is errors.EpisodeUnknownError


def test_episode_errors_are_value_errors_as_rllib_raises() -> None:
    for cls in (errors.EpisodeUnknownError, errors.EpisodeFinishedError, errors.EpisodeDuplicateError, errors.EpisodeLostError):
        assert issubclass(cls, ValueError)
    assert issubclass(errors.ActionTimeoutError, TimeoutError)
    assert issubclass(errors.ServerUnavailableError, ConnectionError)
