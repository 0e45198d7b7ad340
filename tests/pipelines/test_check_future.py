"""`policy-pipeline check-future`: a line for each check, the parts at fault with their places, exit 1 on a fault, no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policyserver.pipelines.__main__ import main
from policyserver.pipelines.market.execution.broker import SimulatedBroker
from policyserver.pipelines.market.processes import process as process_module
from policyserver.pipelines.market.processes.path_bars import bars_from_paths

SMALL = '[episodes]\nconcurrent = 8\n[prices]\nprocess = "gbm"\nbars_per_episode = 40\nwarmup_bars = 64\n'


def checked(tmp_path: Path, *options: str) -> int:
    settings = tmp_path / "pipeline.toml"
    settings.write_text(SMALL, encoding="utf-8")
    return main(["check-future", "--config", str(settings), "--cuts", "2", "--json", str(tmp_path / "found.json"), *options])


@pytest.mark.slow
def test_a_pipeline_without_a_fault_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in lines if not line.startswith(" ")] == [
        "changed future: no fault",
        "fair game: no fault",
        "warm-up: no fault",
    ]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert not found["has_fault"]
    assert [check["check"] for check in found["checks"]] == ["changed future", "fair game", "warm-up"]


@pytest.mark.slow
def test_a_fault_is_told_with_its_place_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaky(*arguments: object) -> object:
        bars = bars_from_paths(*arguments)  # type: ignore[arg-type]
        bars.volume[:, :-1] *= bars.close[:, 1:] / bars.close[:, :-1]
        return bars

    monkeypatch.setattr(process_module, "bars_from_paths", leaky)
    assert checked(tmp_path, "--rules.observers", '["window"]') == 1
    printed = capsys.readouterr().out
    assert "FAULT price: volume: changes with later bars in " in printed
    assert "FAULT observed Window: price.volume[0]: changes with later bars in " in printed
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["has_fault"]
    fault = found["checks"][0]["faults"][0]
    assert fault["before"] != fault["after"]
    assert fault["episode"]


def test_a_part_that_fails_is_no_clean_pipeline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(SimulatedBroker, "submit", fails)
    assert checked(tmp_path) == 1
    assert "planted" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--episodes", "--cuts"])
def test_a_number_below_1_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-future", option, "0"]) == 2
    assert f"{option}: expected at least 1, received 0" in capsys.readouterr().err
