"""What the README shows is true: its configurations load, its summary is the summary, its examples are those in the folder."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from policyserver.common.settings import load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.summary import Summary
from policyserver.server.config.server_config import ServerConfig
from tests.documents import is_there

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "config"), [("server.toml", ServerConfig), ("pipeline.toml", PipelineConfig)])
def test_a_configuration_in_the_readme_is_one(name: str, config: type, tmp_path: Path) -> None:
    (text,) = re.findall(rf"```toml\n(# {re.escape(name)}\n.*?)```", README, re.DOTALL)
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert load(config, file, {}) != config(), "the file says something"


def test_the_readme_names_every_key_of_the_summary_and_no_other() -> None:
    (section,) = re.findall(r"^## The summary\n(.*)\Z", README, re.DOTALL | re.MULTILINE)
    named = [key for first in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", first)]
    assert named == [field.name for field in dataclasses.fields(Summary)]


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_every_file_of_ours_that_a_document_names_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"`((?:client|common|server|pipelines|monitoring|proto|benchmarks|examples|tests|docs)/[\w./-]+\.(?:py|proto|toml|md))`", text
        )
    )
    assert named
    assert [name for name in sorted(named) if not is_there(name)] == []


def test_the_learning_table_in_the_readme_is_that_of_the_last_run() -> None:
    """`make learn` writes the whole table; the README shows some of its columns."""
    whole = [cells(line) for line in (ROOT / "docs" / "learning.md").read_text(encoding="utf-8").splitlines()]
    shown = [cells(line) for line in README.splitlines() if re.match(r"\| (OU|GBM)", line)]
    expected = [[row[column] for column in (0, 1, 3, 5, 6, 7, 10)] for row in whole if row[0].startswith(("OU", "GBM"))]
    assert shown == expected


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]
