"""The bits of a row's flags, as the protocol numbers them, and the version of the protocol."""

from __future__ import annotations

from enum import IntFlag

from policyserver.v1 import policy_service_pb2 as pb

PROTOCOL_VERSION = 1


class StepFlag(IntFlag):
    """What a row of a StepBatch is. No bit set: an observation that wants an action."""

    NONE = pb.STEP_FLAG_UNSPECIFIED
    START = pb.STEP_FLAG_START
    ACTION_GIVEN = pb.STEP_FLAG_ACTION_GIVEN
    TERMINATED = pb.STEP_FLAG_TERMINATED
    TRUNCATED = pb.STEP_FLAG_TRUNCATED
    OVERRIDE = pb.STEP_FLAG_OVERRIDE
    TRAINING_DISABLED = pb.STEP_FLAG_TRAINING_DISABLED
    NO_WAIT = pb.STEP_FLAG_NO_WAIT

    END = TERMINATED | TRUNCATED


def describe_flags(flags: int) -> str:
    """Write a row's flags out, such as "65 (START, and 64, which is no flag)"."""
    names = [flag.name for flag in StepFlag if flag & flags]
    if unknown := flags & ~sum(StepFlag):
        names.append(f"{'and ' if names else ''}{unknown}, which is no flag")
    return f"{flags} ({', '.join(map(str, names)) or 'none'})"
