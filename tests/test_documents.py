"""What documents say is true: their links and names lead somewhere, and each of their blocks is run by a test or says why it is not."""

from __future__ import annotations

import collections
import configparser
import dataclasses
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from policyserver.pipelines.summary import Summary
from tests.documents import OUTPUT, PAGES, ROOT, Block, blocks, commands, is_there

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WORDED = sorted(
    path
    for folder in ("client", "server", "proto", "monitoring", "pipelines", "benchmarks", "examples", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".proto", ".js", ".html", ".css", ".md", ".toml"} and "uplot" not in path.parts
) + [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
VAGUE = re.compile(r"\b(?:(?i:nobody|somebody|whoever|those\s+who)|is\s+none)\b")
"""Words that leave open which party is meant, or what is missing."""


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
    assert len(files) > 20
    assert [file for file in files if not is_there(file)] == []


NOT_RUN = {
    "README.md": 1,  # pip install
    "docs/guides/deploying.md": 5,  # systemd, docker, kubectl
    "docs/guides/cluster.md": 18,  # several machines; tests/cluster follows it
    "docs/guides/monitoring.md": 2,  # docker compose; a program of the reader's
    "docs/guides/own_net.md": 1,  # modules of the reader's
    "docs/tutorial.md": 2,  # make, which installs; docker run
}
"""Blocks that no test runs, by page. Every other one is run by tests/integration/test_document_stories.py."""


def test_the_blocks_that_no_test_runs_are_those_that_say_why() -> None:
    counted = collections.Counter(str(page.relative_to(ROOT)) for page in PAGES for block in blocks(page) if block.not_run)
    assert dict(counted) == NOT_RUN


@pytest.mark.process
@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page)], ids=lambda block: block.name)
def test_a_block_is_of_a_known_language_and_parses(block: Block) -> None:
    match block.language:
        case "toml":
            tomllib.loads(block.text)
        case "python":
            compile(block.text, block.name, "exec")
        case "ini":
            configparser.ConfigParser(strict=False).read_string(block.text)
            assert block.not_run
        case "console":
            assert commands(block.text)
            checked = subprocess.run(["bash", "-n", "-c", "\n".join(commands(block.text))], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr
        case _:
            assert block.language == OUTPUT, f"{block.name}: {block.language or 'no language'}"


def test_the_reference_of_the_summary_names_every_key_and_no_other() -> None:
    text = (ROOT / "docs" / "reference" / "summary.md").read_text(encoding="utf-8")
    named = [key for first in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for key in re.findall(r"`(\w+)`", first)]
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


@pytest.mark.long
def test_every_sentence_says_which_party_is_meant() -> None:
    found = [f"{path.relative_to(ROOT)}: {words}" for path in WORDED for words in VAGUE.findall(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("text", ["Nobody waits.", "for whoever asks", "those\n    who wait", "while there is none"])
def test_the_search_for_vague_words_sees_them(text: str) -> None:
    assert VAGUE.search(text)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"])
def test_a_document_that_a_reader_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/glossary.md"])
def test_a_file_that_is_named_without_its_folder_is_somewhere_in_the_tree(document: str) -> None:
    named = set(re.findall(r"`(\w+\.py)`", (ROOT / document).read_text(encoding="utf-8")))
    folders = ("client", "server", "monitoring", "pipelines", "proto", "benchmarks", "deploy", "examples", "tests")
    there = {path.name for folder in folders for path in (ROOT / folder).rglob("*.py")}
    assert named - there == set()
