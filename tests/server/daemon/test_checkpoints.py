"""The newest whole checkpoint is found, a damaged one passed over; one of other spaces, connectors, nets, or open to others is refused."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from policyserver.common.settings import load
from policyserver.server.config.algorithm import net_settings
from policyserver.server.config.algorithm_defaults import DEFAULTS_BY_ALGORITHM
from policyserver.server.config.rllib_config import RLlibConfig, SpacesConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.config.standard_connectors import ConnectorsConfig
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.folder_lock import FolderInUseError
from policyserver.server.daemon.preflight import checkpoint_folder
from policyserver.server.processes.training_report import Progress


def open_folder(folder: Path, keep: int = 3, spaces: SpacesConfig | None = None) -> CheckpointFolder:
    return CheckpointFolder(folder, keep, spaces or SpacesConfig())


def write(content: str) -> Callable[[Path], None]:
    def into(folder: Path) -> None:
        (folder / "learner").mkdir()
        (folder / "learner" / "weights").write_text(content)
        (folder / "metadata").write_text("about")

    return into


def save_and_close(folder: Path, *iterations: int, keep: int = 3) -> list[Checkpoint]:
    checkpoints = open_folder(folder, keep)
    saved = [checkpoints.save(write(f"weights of {iteration}"), Progress(iteration=iteration)) for iteration in iterations]
    checkpoints.close()
    return saved


def newest(folder: Path, spaces: SpacesConfig | None = None) -> Checkpoint | None:
    checkpoints = open_folder(folder, spaces=spaces)
    try:
        return checkpoints.newest_whole()
    finally:
        checkpoints.close()


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path / "new") is None


@pytest.mark.long
def test_the_newest_checkpoint_is_found_with_its_counters(tmp_path: Path) -> None:
    progress = Progress(iteration=2, steps_total=8000, learner_updates=2, weights_seq_no=2)
    checkpoints = open_folder(tmp_path)
    checkpoints.save(write("old"), Progress(iteration=1))
    saved = checkpoints.save(write("new"), progress)
    assert checkpoints.newest_whole() == saved
    assert saved.progress == progress
    assert (saved.path / "learner" / "weights").read_text() == "new"
    checkpoints.close()


@pytest.mark.long
def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    saved = save_and_close(tmp_path, 1, 2, 3, 4, keep=2)
    assert [checkpoint.path.exists() for checkpoint in saved] == [False, False, True, True]


@pytest.mark.long
def test_a_run_that_begins_anew_in_a_folder_is_newer_than_what_lies_there(tmp_path: Path) -> None:
    save_and_close(tmp_path, 50)
    (restarted,) = save_and_close(tmp_path, 1)
    assert newest(tmp_path) == restarted


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / "learner" / "weights").read_bytes())
    content[3] ^= 1
    (path / "learner" / "weights").write_bytes(content)


def tear(path: Path) -> None:
    with (path / "learner" / "weights").open("r+b") as file:
        file.truncate(2)


def replace_by_folder(path: Path) -> None:
    (path / "manifest.json").unlink()
    (path / "manifest.json").mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip_a_bit,
    "a torn file": tear,
    "a missing file": lambda path: (path / "metadata").unlink(),
    "a file too many": lambda path: (path / "learner" / "other").write_text("?"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "half a manifest": lambda path: (path / "manifest.json").write_text((path / "manifest.json").read_text()[:100]),
    "a manifest of another format": lambda path: (path / "manifest.json").write_text(json.dumps({"format_version": 99})),
    "a manifest that is no table": lambda path: (path / "manifest.json").write_text("[]"),
    "a manifest without its sum": lambda path: (path / "manifest.json.sha256").unlink(),
    "a folder in the manifest's place": replace_by_folder,
}


@pytest.mark.long
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, last = save_and_close(tmp_path, 1, 2)
    damage(last.path)
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == before
    assert f"passing over the damaged checkpoint {last.path}" in caplog.text


@pytest.mark.long
def test_when_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    for checkpoint in save_and_close(tmp_path, 1, 2):
        tear(checkpoint.path)
    assert newest(tmp_path) is None


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    (before,) = save_and_close(tmp_path, 1)

    def full_disk(folder: Path) -> None:
        write("half")(folder)
        raise OSError(28, "No space left on device")

    checkpoints = open_folder(tmp_path)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.save(full_disk, Progress(iteration=2))
    assert checkpoints.newest_whole() == before
    assert {path.name for path in tmp_path.iterdir()} == {before.path.name, "lock"}
    checkpoints.close()


def test_what_a_crash_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    (before,) = save_and_close(tmp_path, 1)
    (tmp_path / "tmp-00000002" / "learner").mkdir(parents=True)
    assert newest(tmp_path) == before
    assert not (tmp_path / "tmp-00000002").exists()


def test_a_checkpoint_for_other_spaces_is_refused_with_both(tmp_path: Path) -> None:
    save_and_close(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"action space Discrete\(3\), but the configuration says Discrete\(2\)"):
        newest(tmp_path, SpacesConfig(action={"type": "Discrete", "n": 2}))


def test_a_checkpoint_made_with_other_connectors_is_refused(tmp_path: Path) -> None:
    """The net would take raw observations for normalized ones without an error."""
    checkpoints = CheckpointFolder(tmp_path, 3, SpacesConfig(), ConnectorsConfig(mean_std_filter=True))
    saved = checkpoints.save(write("weights"), Progress(iteration=1))
    assert checkpoints.newest_whole() == saved
    checkpoints.close()
    with pytest.raises(CheckpointError, match=r"connectors.mean_std_filter = true, but the configuration says false"):
        newest(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("other", ['fcnet_activation = "relu"', "use_lstm = true", "fcnet_hiddens = [32, 32]"])
def test_a_checkpoint_of_another_net_is_refused_by_the_setting_that_differs(other: str, tmp_path: Path) -> None:
    """RLlib would take weights of the same names and shapes, and leave the others fresh, without a word."""

    def config(extra: str) -> ServerConfig:
        path = tmp_path / "server.toml"
        path.write_text(f'run_folder = "{tmp_path}"\n[algorithm.rl_module.model_config]\n{extra}\n', encoding="utf-8")
        return load(ServerConfig, path)

    made = "use_lstm = false\nfcnet_hiddens = [64, 64]"
    first = checkpoint_folder(config(made))
    saved = first.save(write("weights"), Progress(iteration=1))
    assert first.newest_whole() == saved
    first.close()
    key = other.partition(" ")[0]
    changed = "\n".join([*(line for line in made.splitlines() if not line.startswith(key)), other])
    with closing(checkpoint_folder(config(changed))) as second, pytest.raises(CheckpointError, match=rf"model_config\.{key} = .*says"):
        second.newest_whole()


@pytest.mark.parametrize(("name", "key", "other"), [("DQN", "dueling", False), ("DQN", "num_atoms", 51), ("SAC", "twin_q", False)])
def test_what_training_says_of_the_net_belongs_to_the_net(name: Any, key: str, other: object) -> None:
    plain, changed = RLlibConfig(name=name), RLlibConfig(name=name, training={key: other})
    before, after = net_settings(ServerConfig(algorithm=plain)), net_settings(ServerConfig(algorithm=changed))
    assert {name for name in after if after[name] != before[name]} == {f"algorithm.training.{key}"}


def test_a_net_that_says_what_is_the_default_is_the_same_net() -> None:
    said = {**DEFAULTS_BY_ALGORITHM["PPO"]["rl_module"]["model_config"], "fcnet_activation": "tanh"}
    config = ServerConfig(algorithm=RLlibConfig(rl_module={"model_config": said}))
    assert net_settings(config) == net_settings(ServerConfig())


def test_a_checkpoint_of_a_release_that_noted_neither_connectors_nor_a_sum_is_taken(tmp_path: Path) -> None:
    (saved,) = save_and_close(tmp_path, 1)
    manifest = json.loads((saved.path / "manifest.json").read_text())
    del manifest["connectors"]
    manifest["format_version"] = 1
    (saved.path / "manifest.json").write_text(json.dumps(manifest))
    (saved.path / "manifest.json.sha256").unlink(missing_ok=True)
    assert newest(tmp_path) == saved


@pytest.mark.long
@pytest.mark.parametrize("bits", [pytest.param(8, marks=pytest.mark.slow), 1], ids=["each bit", "one of each byte"])
def test_a_flipped_bit_anywhere_in_a_manifest_is_noticed(tmp_path: Path, bits: int) -> None:
    before, last = save_and_close(tmp_path, 1, 2)
    for name in ("manifest.json", "manifest.json.sha256"):
        file = last.path / name
        if not file.exists():
            continue
        content = file.read_bytes()
        believed, crashed = [], []
        for position, further in itertools.product(range(0, len(content), 7), range(bits)):
            flipped, bit = bytearray(content), (position + further) % 8
            flipped[position] ^= 1 << bit
            file.write_bytes(flipped)
            try:
                if newest(tmp_path) != before:
                    believed.append((position, bit))
            except Exception as error:
                crashed.append((position, bit, error))
        file.write_bytes(content)
        assert (believed, crashed) == ([], []), f"of the bits of {name}"
    assert newest(tmp_path) == last


@pytest.mark.long
def test_a_file_where_a_folder_of_ours_would_be_stops_nothing(tmp_path: Path) -> None:
    (before,) = save_and_close(tmp_path, 1)
    (tmp_path / "tmp-00000002").write_text("a file")
    (tmp_path / "checkpoint-00000002").write_text("a file")
    checkpoints = open_folder(tmp_path)
    assert checkpoints.newest_whole() == before
    saved = checkpoints.save(write("new"), Progress(iteration=2))
    assert checkpoints.newest_whole() == saved
    assert saved.path.name == "checkpoint-00000003"
    checkpoints.close()


def test_spaces_written_differently_but_equal_are_the_same(tmp_path: Path) -> None:
    (saved,) = save_and_close(tmp_path, 1)
    same = {"type": "Box", "low": [-100] * 10, "high": 100, "shape": [10]}
    assert newest(tmp_path, SpacesConfig(observation=same)) == saved


def test_a_checkpoint_that_others_could_have_changed_is_refused(tmp_path: Path) -> None:
    (saved,) = save_and_close(tmp_path, 1)
    (saved.path / "metadata").chmod(0o666)
    with pytest.raises(CheckpointError, match="only this user can write"):
        newest(tmp_path)


def test_two_daemons_cannot_share_a_folder(tmp_path: Path) -> None:
    checkpoints = open_folder(tmp_path)
    with pytest.raises(FolderInUseError, match="in use by another process"):
        open_folder(tmp_path)
    checkpoints.close()
    checkpoints.close()
    open_folder(tmp_path).close()
