from __future__ import annotations

import re
from pathlib import Path

import pytest

from policyserver.common.settings import load
from policyserver.server.config.server_config import ServerConfig
from tests.documents import is_there

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    code = re.findall(r"`([^`\n]+)`|^(make .*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    named = {
        word for pair in code for text in pair if text.startswith("make ") for word in re.findall(r"^make(?: \w+=\S+)* ([a-z-]+)", text)
    }
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert not broken


def test_the_architecture_says_once_where_to_change_what_and_names_files_that_are_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Where to change what")[2].partition("\n## ")[0]
    wishes = re.findall(r"^\| ([a-z][^|]*) \|", text, re.MULTILINE)
    assert sorted(wishes) == sorted(set(wishes))
    files = re.findall(r"`((?:client|common|server|pipelines|monitoring|proto|deploy|tests|benchmarks)/[\w/]+\.\w+)`", text)
    assert len(files) > 30
    assert [file for file in files if not is_there(file)] == []


def test_a_server_configuration_in_the_walk_through_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        assert load(ServerConfig, file, {}).page_listen is not None


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"])
def test_a_document_that_a_reader_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/glossary.md"])
def test_a_file_that_is_named_without_its_folder_is_somewhere_in_the_tree(document: str) -> None:
    named = set(re.findall(r"`(\w+\.py)`", (ROOT / document).read_text(encoding="utf-8")))
    folders = ("client", "server", "monitoring", "pipelines", "proto", "benchmarks", "deploy", "examples", "tests")
    there = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert named - there == set()
