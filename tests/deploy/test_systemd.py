"""The units of deploy/systemd, by systemd's own checks; test_systemd_machine.py runs them."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from policyserver.common.settings import load
from policyserver.pipelines.config import PipelineConfig
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.daemon.daemon import _longest_stop_s
from tests.services import program

SYSTEMD = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
MOST_EXPOSURE = 2.0

each_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def settings(unit: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return parser["Service"]


@pytest.mark.process
@each_unit
def test_a_unit_is_closed_off(unit: Path, missing_service: Callable[[str], NoReturn]) -> None:
    analyze = program("systemd-analyze", missing_service)
    done = subprocess.run([analyze, "security", "--offline=yes", str(unit)], capture_output=True, text=True, check=True)
    rate = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert rate
    assert float(rate[1]) <= MOST_EXPOSURE, done.stdout


@pytest.mark.process
@each_unit
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path, missing_service: Callable[[str], NoReturn], tmp_path: Path) -> None:
    analyze = program("systemd-analyze", missing_service)
    here = tmp_path / unit.name
    here.write_text(unit.read_text(encoding="utf-8").replace("/opt/policy-server/bin", str(Path(sys.executable).parent)), encoding="utf-8")
    done = subprocess.run([analyze, "verify", "--man=no", "--recursive-errors=no", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    here.write_text(here.read_text(encoding="utf-8") + "[Service]\nProtectHoem=yes\n", encoding="utf-8")
    spoiled = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(here)], capture_output=True, text=True, check=False
    )
    assert "ProtectHoem" in spoiled.stderr, "it looks"


def test_a_stop_has_the_time_that_it_takes() -> None:
    longest_s = _longest_stop_s(load(ServerConfig, SYSTEMD / "server.toml"))
    assert float(settings(SYSTEMD / "policy-server.service")["TimeoutStopSec"]) > longest_s


@pytest.mark.parametrize(("name", "kind"), [("server", ServerConfig), ("pipeline", PipelineConfig)])
def test_the_files_write_into_the_state_folder_of_their_unit(name: str, kind: type[ServerConfig] | type[PipelineConfig]) -> None:
    unit, file = settings(SYSTEMD / f"policy-{name}.service"), SYSTEMD / f"{name}.toml"
    config = load(kind, file)
    folder = config.run_folder if isinstance(config, ServerConfig) else config.recording.store
    assert folder is not None
    assert folder.is_relative_to(Path("/var/lib") / unit["StateDirectory"])
    assert unit["ExecStart"].endswith(f"--config /etc/policy-server/{name}.toml")
