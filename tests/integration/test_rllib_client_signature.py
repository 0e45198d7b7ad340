"""Our client's calls have the names, order and defaults of RLlib's, and what we added comes by keyword alone."""

from __future__ import annotations

import inspect

import pytest
from ray.rllib.env.policy_client import PolicyClient as RllibPolicyClient

from policyserver.client import PolicyClient

OURS = {"inference_mode": "remote"}
"""The one default that differs: RLlib's is "local"."""
MULTI_AGENT = {"multiagent_done_dict"}
"""Arguments of RLlib's that only multi-agent episodes have."""


@pytest.mark.parametrize("method", ["__init__", "start_episode", "get_action", "log_action", "log_returns", "end_episode"])
def test_a_call_written_for_rllibs_client_means_the_same_here(method: str) -> None:
    """Names, order and defaults are RLlib's; what we added comes by keyword alone and may be left out."""
    theirs = [entry for entry in inspect.signature(getattr(RllibPolicyClient, method)).parameters.values() if entry.name not in MULTI_AGENT]
    ours = list(inspect.signature(getattr(PolicyClient, method)).parameters.values())
    assert [(entry.name, OURS.get(entry.name, entry.default)) for entry in theirs] == [
        (entry.name, entry.default) for entry in ours[: len(theirs)]
    ]
    assert all(entry.kind is entry.KEYWORD_ONLY and entry.default is not entry.empty for entry in ours[len(theirs) :])
