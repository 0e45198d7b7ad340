"""A run's folder says what the run is made with from its first step on, and belongs to one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from policyserver.common.settings import SettingsError, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.catalog import CatalogConfig, file_hash
from policyserver.pipelines.prices import PricesConfig
from policyserver.pipelines.replay import provenance
from policyserver.pipelines.replay.provenance import Provenance
from policyserver.pipelines.replay.run_folder import folder_of, parts_of
from policyserver.pipelines.replay.run_record import recorded_run
from tests.pipelines.recorded_prices import fair_game, write_bars

pytestmark = pytest.mark.process  # git's, which is asked for the revision


def nothing() -> None:
    return


def test_the_folder_has_everything_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_bars(tmp_path / "AAA.csv", fair_game(300, seed=1))
    monkeypatch.chdir(tmp_path)
    config = PipelineConfig(seed=5, worker_number=2, prices=PricesConfig(recorded=CatalogConfig(("*.csv",)), bars_per_episode=50))
    run = tmp_path / "run"
    run.mkdir()
    with recorded_run(config, run, nothing):
        made_with = json.loads((run / "run.json").read_text())
        settings = load(PipelineConfig, run / "pipeline.toml")
        assert (run / "events.arrows").exists()
    assert settings.prices.recorded == CatalogConfig((str(tmp_path / "*.csv"),)), "found from any folder"
    assert settings.episodes_seed == made_with["episodes_seed"] == config.episodes_seed
    assert made_with["seed"] == 5
    assert made_with["versions"]["numpy"] == np.__version__
    assert {"python", "river", "pyarrow", "rllib-policy-server"} <= made_with["versions"].keys()
    assert made_with["processor"]
    assert [(each["sha256"], each["n_bytes"]) for each in made_with["data"]] == [(file_hash(file), file.stat().st_size)]
    assert Provenance.from_json((run / "run.json").read_text()).differences(Provenance.of(config)) == []


def test_a_folder_in_which_another_process_writes_is_refused(tmp_path: Path) -> None:
    config = PipelineConfig()
    refused = pytest.raises(SettingsError, match="expected a folder of this run alone")
    with recorded_run(config, tmp_path, nothing), refused, recorded_run(config, tmp_path, nothing):
        pass
    with recorded_run(config, tmp_path, nothing):
        pass
    assert [part.name for part in parts_of(tmp_path)] == ["1", tmp_path.name]


def test_a_revision_is_that_of_the_product_and_of_no_other_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Provenance.of(PipelineConfig()).revision
    assert here is None or len(here.rstrip("+")) == 40
    copy = Path(provenance.__file__).parent / "not_a_file_of_the_checkout.py"
    monkeypatch.setattr(provenance, "__file__", str(copy))
    assert Provenance.of(PipelineConfig()).revision is None


def test_a_pattern_names_new_folders_and_a_plain_name_one(tmp_path: Path) -> None:
    new = [folder_of(tmp_path / "runs" / "{time}-seed{seed}", 7) for _ in range(3)]
    assert len(set(new)) == 3
    assert all(folder.is_dir() and "Z-seed7" in folder.name for folder in new)
    assert folder_of(tmp_path / "mine-{seed}", 7) == folder_of(tmp_path / "mine-{seed}", 7) == tmp_path / "mine-7"
