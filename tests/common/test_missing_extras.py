"""An installation of the client alone has the commands, too: what they lack is named, with the extra that brings it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import sys
sys.modules[sys.argv.pop(1)] = None  # as if it were not installed
command = sys.argv.pop(1)
from policyserver.common import commands
getattr(commands, command)()
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("package", "command", "arguments", "extra"),
    [
        ("ray", "policy_server", ["serve", "--listen.address", "127.0.0.1:0", "--run_folder", "run"], "server"),
        ("starlette", "policy_monitor", ["serve", "--store", "/nowhere/store.sqlite"], "server"),
        ("pyarrow", "policy_pipeline", ["check-data", "/nowhere.csv"], "pipelines"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(package: str, command: str, arguments: list[str], extra: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, package, command, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert f"expected the package {package} to be installed" in ended.stderr
    assert f'".[{extra}]"' in ended.stderr
    assert "Traceback" not in ended.stderr
