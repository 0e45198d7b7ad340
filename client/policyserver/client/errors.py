"""The errors that only a client has. The others are in `policyserver.common.errors`."""

from __future__ import annotations

from typing import Any

from policyserver.common.errors import ClientClosedError, PolicyServerError, ServerUnavailableError


class InsecureTargetError(ValueError):
    """Steps or tokens would travel over a network in plain text. Nothing was sent: give `tls_ca_file` and `token_file`."""


class EncryptionError(ServerUnavailableError):
    """One end speaks TLS and the other plaintext, or this client does not trust the server's certificate. Correct `tls_ca_file`."""


class ForkedClientError(ClientClosedError):
    """The client belongs to the process that this one was forked from.

    gRPC is unreliable in a child of a process that uses it: start processes with multiprocessing's `spawn` or `forkserver`, and make
    a client in each.
    """


class BatchError(PolicyServerError):
    """Some rows of a batched call failed; all the others were done. Treat each of `errors` as the error of a single call.

    Attributes:
        actions: the batch of actions, zeros in the rows that failed. None where the call returns no actions.
        errors: what went wrong, by row.
    """

    def __init__(self, rows: int, actions: Any, errors: dict[int, PolicyServerError]) -> None:
        first = min(errors)
        error = errors[first]
        text = f"{len(errors)} of {rows} rows failed; the first is row {first}: {type(error).__name__}: {error}"
        super().__init__(text, code=error.code, reason=error.reason, field=error.field)
        self.rows = rows
        self.actions = actions
        self.errors = dict(sorted(errors.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchError, (self.rows, self.actions, self.errors)
