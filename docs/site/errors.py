"""The reference of errors: each class with what to do about it, and the reasons by which errors travel, from the one table of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import policyserver.client
from docs.site.protocol import value_comments
from policyserver.client import PolicyServerError
from policyserver.common.errors import from_row_error
from policyserver.v1 import policy_service_pb2 as pb


def markdown(_: str) -> str:
    """Return the classes that a client's calls raise, each below its base."""
    public = (getattr(policyserver.client, name) for name in policyserver.client.__all__)
    classes = [each for each in public if isinstance(each, type) and issubclass(each, Exception)]
    return "\n".join(line for each in sorted(classes, key=_place) for line in _entry(each))


def _place(error: type[Exception]) -> list[str]:
    """Sort classes as a tree: each behind its base."""
    return [each.__name__ for each in reversed(error.__mro__) if each.__module__.startswith("policyserver")]


def _entry(error: type[Exception]) -> Iterator[str]:
    bases = ", ".join(f"`{base.__name__}`" for base in error.__bases__)
    yield f"`{error.__name__}` ({bases})"
    reasons = [f"`{reason}`" for reason, each in _reasons() if type(each) is error]
    travels = f" Reason: {' or '.join(reasons)}." if reasons else ""
    paragraphs = (inspect.getdoc(error) or "").split("\n\n")
    text = " ".join(" ".join(paragraph.split()) for paragraph in paragraphs if not paragraph.startswith("Attributes:"))
    yield f": {text}{travels}"
    yield ""


def reasons_markdown(_: str) -> str:
    """Return a table of the reasons: the gRPC status, the class that a client raises, and the meaning that the .proto gives."""
    comments = value_comments("Reason")
    lines = ["| reason | gRPC status | raised as | meaning |", "| --- | --- | --- | --- |"]
    for reason, error in _reasons():
        status = error.code.name if error.code else ""
        lines.append(f"| `{reason}` | `{status}` | `{type(error).__name__}` | {comments[f'REASON_{reason}']} |")
    return "\n".join(lines)


def _reasons() -> list[tuple[str, PolicyServerError]]:
    """Return each reason with the error that a client makes of it."""
    found = []
    for name in pb.Reason.keys():  # noqa: SIM118 - no dictionary
        reason = name.removeprefix("REASON_")
        if reason != "UNSPECIFIED":
            decoded = type(from_row_error(pb.RowError(reason=name)))
            found.append((reason, decoded("", reason=reason)))
    return found
