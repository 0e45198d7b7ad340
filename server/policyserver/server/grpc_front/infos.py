"""How large infos may be that come over the wire, judged before they are decoded."""

from __future__ import annotations

from policyserver.common.errors import WireError
from policyserver.v1 import policy_service_pb2 as pb

MOST_INFO_BYTES = 256 * 2**10
"""Bytes of one step's info, as JSON in UTF-8."""
_MOST_OF_A_MESSAGE_BYTES = 64 * 2**20  # of all infos of a message, decoded
_VALUE_BYTES = 100  # about what a value takes beside its text: "[[],[],[]]" decodes to twenty times its length


def check_info(text: str, field: str) -> int:
    """Return about how many bytes an info takes when it is decoded.

    Raises:
        WireError: It is too long.
    """
    if len(text) > MOST_INFO_BYTES // 4 and (size := len(text.encode())) > MOST_INFO_BYTES:
        raise WireError(f"{field}: expected a JSON object of at most {MOST_INFO_BYTES} bytes, received {size}", field=field)
    return len(text) + _VALUE_BYTES * (1 + text.count(",") + text.count("[") + text.count("{"))


def check_infos(batch: pb.StepBatch) -> int:
    """Return about how many bytes the infos of a message take when they are decoded.

    Raises:
        WireError: One is too long, or all together.
    """
    if not batch.infos:
        return 0
    total = sum([check_info(info.json, f"infos[{index}].json") for index, info in enumerate(batch.infos)])
    if total > _MOST_OF_A_MESSAGE_BYTES:
        text = f"infos: expected at most about {_MOST_OF_A_MESSAGE_BYTES} bytes of one message when they are decoded, received {total}"
        raise WireError(f"{text}; send fewer rows in a message", field="infos")
    return total
