"""What `policy-server` refuses, with which status, before the seconds that Ray's import takes; and what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig
from tests.commands import run_here


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import atexit, sys\n"
        "heavy = lambda: [name for name in ('ray', 'torch') if name in sys.modules]\n"
        "atexit.register(lambda: sys.stderr.write(f'imported: {heavy()}'))\n"
        "from policyserver.server.__main__ import main\n"
        "sys.exit(main())"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.process
def test_a_wrong_key_in_the_file_ends_with_status_2_and_its_name_before_ray_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[listen]\nadress = "127.0.0.1:1"\n')
    ended = run("serve", "--config", str(file), "--run_folder", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert "listen.adress: unknown key" in ended.stderr
    assert "imported: []" in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.process
def test_an_open_address_has_its_own_status(tmp_path: Path) -> None:
    ended = run("serve", "--run_folder", str(tmp_path), "--listen.address", "0.0.0.0:9900")
    assert ended.returncode == 78
    assert "listen.tls_certificate_file and listen.tls_key_file and listen.token_file must" in ended.stderr
    assert "imported: []" in ended.stderr


@pytest.mark.parametrize(
    ("options", "message"), [(["--listen.adress", "x"], "--listen.adress"), (["--hand_off.batches_ahead", "-1"], "hand_off.batches_ahead")]
)
def test_wrong_options_are_named_and_have_status_2(options: list[str], message: str, tmp_path: Path) -> None:
    ended = run_here("policy-server", "serve", "--run_folder", str(tmp_path), *options)
    assert ended.returncode == 2
    assert message in ended.stderr


@pytest.mark.slow
@pytest.mark.process
def test_check_config_prints_a_file_that_reads_back(tmp_path: Path) -> None:
    printed = run("check-config", "--seed", "3", "--hand_off.segment_steps", "16")
    assert printed.returncode == 0
    file = tmp_path / "printed.toml"
    file.write_text(printed.stdout)
    assert load(ServerConfig, file) == load(ServerConfig, None, {"seed": 3, "hand_off.segment_steps": 16})


@pytest.mark.long
def test_help_says_what_each_option_means() -> None:
    shown = run_here("policy-server", "serve", "--help")
    assert shown.returncode == 0
    assert "--checkpoints.every_iterations" in shown.stdout
    assert "Newest checkpoints kept." in shown.stdout
