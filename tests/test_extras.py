"""What is said of installing can be done: no index has the package, and each extra that is named is there."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.process  # git

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
SOURCES = ("*.md", "*.py", "*.service", "*Dockerfile")


def texts() -> dict[str, str]:
    """Return what is under version control and may say how to install, by path; the changelog tells the past."""
    listed = subprocess.run(["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    here = Path(__file__).relative_to(ROOT)
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in listed if name not in ("CHANGELOG.md", str(here))}


def test_nothing_is_installed_from_an_index_by_the_projects_name() -> None:
    assert [name for name, text in texts().items() if re.search(r"rllib-policy-server\[", text)] == []


def test_each_extra_that_is_named_is_there() -> None:
    named = {
        (name, extra) for name, text in texts().items() for extras in re.findall(r"\.\[([a-z,]+)\]\"", text) for extra in extras.split(",")
    }
    assert {extra for _, extra in named} >= {"server", "pipelines", "onnx", "tensorboard"}
    assert [(name, extra) for name, extra in named if extra not in EXTRAS] == []
