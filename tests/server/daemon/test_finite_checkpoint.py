"""A checkpoint with numbers that are not finite is refused wherever it would be restored or served, by its first bad array."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policyserver.server.config.rllib_config import SpacesConfig
from policyserver.server.daemon.checkpoints import CheckpointFolder, CheckpointNotFiniteError
from policyserver.server.processes.training_report import Progress

MODULE = "learner_group/learner/rl_module/default_policy/module_state.pkl"
LEARNER = "learner_group/learner/state.pkl"
FILTER = "env_runner/env_to_module_connector/MeanStdFilter/state.pkl"
WEIGHT, BIAS = np.ones((2, 3), np.float32), np.zeros(2)


def with_number(number: float) -> Any:
    weight = WEIGHT.copy()
    weight[1, 0] = number
    return weight


def states(**spoiled: Any) -> dict[str, Any]:
    """The states in a checkpoint by file, some of them spoiled."""
    weight = spoiled.get("weight", WEIGHT)
    return {
        "served.pkl": {"rl_module": {"default_policy": {"pi.weight": spoiled.get("served", weight), "pi.bias": BIAS}}, "weights_seq_no": 3},
        MODULE: {"pi.weight": weight, "pi.bias": BIAS},
        LEARNER: {"optimizer": {"default_policy_default_optimizer": {"state": {0: {"exp_avg": spoiled.get("moment", WEIGHT)}}}}},
        FILTER: {None: {"running_stats": [{"mean_array": spoiled.get("mean", BIAS)}]}},
        "algorithm_state.pkl": {"metrics": np.array([np.nan]), "return": float("nan")},
    }


def writing(contents: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(pickle.dumps(content))

    return write


def checkpoints(folder: Path, *all_contents: dict[str, Any]) -> CheckpointFolder:
    opened = CheckpointFolder(folder, 5, SpacesConfig(), claim=False)
    for contents in all_contents:
        opened.save(writing(contents), Progress())
    return opened


@pytest.mark.parametrize(
    ("spoiled", "found"),
    [
        (
            {"weight": with_number(np.nan)},
            "served.pkl, rl_module/default_policy/pi.weight: 1 of 6 numbers are not finite, .* nan",
        ),
        ({"served": with_number(np.inf)}, r"served.pkl, rl_module/default_policy/pi.weight: 1 of 6 .* the first is inf at \[1, 0\]"),
        ({"moment": torch.tensor([np.nan, 1.0])}, f"{LEARNER}, optimizer/.*/state/0/exp_avg: 1 of 2"),
        ({"mean": np.array([0.0, np.nan])}, f"{FILTER}, None/running_stats/0/mean_array: 1 of 2"),
    ],
    ids=["NaN weight", "inf served", "NaN moment", "NaN filter"],
)
def test_it_is_refused_with_the_first_bad_array_and_what_to_do(spoiled: dict[str, Any], found: str, tmp_path: Path) -> None:
    folder = checkpoints(tmp_path, states(), states(**spoiled))
    path = f"{re.escape(str(tmp_path))}/checkpoint-00000002"
    text = f"{path}: expected finite numbers, received {found}.*; choose an earlier checkpoint, or move this folder away"
    for restore in (folder.newest_whole, lambda: folder.whole(2)):
        with pytest.raises(CheckpointNotFiniteError, match=text):
            restore()
    assert folder.whole(1).number == 1
    (tmp_path / "checkpoint-00000002").rename(tmp_path / "bad")
    newest = folder.newest_whole()
    assert newest is not None
    assert newest.number == 1


def test_masks_of_minus_infinity_whole_numbers_and_what_is_no_weight_are_let_pass(tmp_path: Path) -> None:
    mask = with_number(-np.inf)
    assert checkpoints(tmp_path, states(served=mask, mean=np.array([1, 2]))).newest_whole() is not None


def test_one_of_an_older_version_and_a_file_that_is_no_pickle_are_for_restoring_to_judge(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        writing({MODULE: {"pi.weight": WEIGHT}})(folder)
        (folder / "env_runner").mkdir()
        (folder / "env_runner" / "state.pkl").write_bytes(b"no pickle")

    folder = checkpoints(tmp_path)
    folder.save(write, Progress())
    assert folder.newest_whole() is not None
