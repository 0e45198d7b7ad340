"""Who may import whom: each folder's `__init__.py` says it, and the sources are read, so that no import at run time has to fail first.

The last paragraph of a package's docstring names all of ours that the files of its folder import, each module or folder in backticks. A
folder stands for the files that lie in it; a nested folder is named by itself and has a sentence of its own. Names begin in `policyserver`,
those of the benchmarks and tests in the repository.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

Source = tuple[str, Path]
"""A module as its path from the package's parent, and its file."""

ROOT = Path(__file__).parents[1]
NAMESPACE = "policyserver"
PACKAGES = {f"{NAMESPACE}.{name}": ROOT / name / NAMESPACE / name for name in ("client", "server", "pipelines", "monitoring")} | {
    f"{NAMESPACE}.{name}": ROOT / "proto" / NAMESPACE / name for name in ("common", "v1")
}

# How a package's docstring ends.
NAME = r"`([\w.]+)`"
SENTENCE = re.compile(rf"Imports (?:nothing of ours|{NAME}(?:, {NAME})*(?: and {NAME})?)\.")
BESIDE_THE_NAMESPACE = ("benchmarks", "tests")

# Imports that close a circle of folders, and why they stay: (the importing folder, a pattern of the imported ones).
CIRCLES = {
    ("policyserver.monitoring", "policyserver.monitoring.*"): "most of its files are what the nested folders share, `recording` opens them",
    ("policyserver.pipelines", "policyserver.pipelines.*"): "most of its files are what the nested folders share, `pipeline` wires them",
    (
        "policyserver.pipelines.market",
        "policyserver.pipelines.market.*",
    ): "its files are the arrays that the nested folders share, `block` joins them",
    ("policyserver.pipelines.runtime", "policyserver.pipelines.nodes"): "`node_watch` records what only a policy node counts",
}

# Package -> what it may import of others at module level or anywhere else, the standard library apart.
_BASE = {"annotated_types", "grpc", "numpy", "google.protobuf", "gymnasium"}
OTHERS = {"policyserver.common": _BASE, "policyserver.v1": _BASE, "policyserver.client": _BASE}

# The market core is arrays alone: what it may import beside itself and what ONLY_IN allows to a file; and what of the standard library it
# may not, since the same input has to give the same bits.
MARKET = "policyserver/pipelines/market/"
OF_THE_MARKET = {
    "policyserver.pipelines.market",
    "policyserver.common.settings",
    "policyserver.common.settings_declaration",
    "policyserver.monitoring.action",
    "annotated_types",
    "gymnasium",
    "numpy",
}
NOT_IN_THE_MARKET = {
    "asyncio",
    "concurrent",
    "multiprocessing",
    "queue",
    "random",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "time",
}

BENCHMARKS = ROOT / "benchmarks"

# Module -> the only files that may import it.
ONLY_IN = {
    "ray": ["policyserver/server/*"],
    "torch": ["policyserver/server/*"],
    "river": ["policyserver/pipelines/forecast/*.py"],
    "influxdb_client": ["policyserver/monitoring/influx/*.py"],
    "pyarrow": ["policyserver/pipelines/market/files/*.py", "policyserver/pipelines/replay/event_file.py"],
    "exchange_calendars": ["policyserver/pipelines/market/calendars.py"],
    "matplotlib": [],
    "onnx": ["policyserver/server/export/onnx_file.py"],
}

MAX_LINES = 400

# How a test file begins: with a sentence of one line, after which the docstring ends or an empty line follows.
FIRST_LINE = re.compile(r'"""\S.*\.(?:"""\n|\n\n)')

# What others are to import from, a user's own part of the market too: these hand on names that other modules define.
PUBLIC = {
    "policyserver/client/__init__.py",
    "policyserver/server/__init__.py",
    "policyserver/common/settings.py",
    "policyserver/pipelines/prices/__init__.py",
    f"{MARKET}processes/__init__.py",
    f"{MARKET}risk/__init__.py",
    f"{MARKET}risk/limit.py",
    *(f"{MARKET}schemes/{kind}s/__init__.py" for kind in ("action", "end", "observer", "reward")),
    f"{MARKET}schemes/actions/action_scheme.py",
    f"{MARKET}schemes/ends/end.py",
    f"{MARKET}schemes/observers/observer.py",
    f"{MARKET}schemes/rewards/reward_term.py",
}


def sources() -> list[Source]:
    """Return every hand-written module."""
    found = []
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            if not fnmatch(path.name, "*_pb2*.py"):
                found.append((str(Path(*name.split(".")) / path.relative_to(folder)), path))
    return found


def tools() -> list[Source]:
    """Return every file of the benchmarks, likewise."""
    return [(str(path.relative_to(ROOT)), path) for path in sorted(BENCHMARKS.rglob("*.py"))]


def imports(name: str, path: Path) -> list[str]:
    """Return every module that a file imports, relative ones resolved, at whatever depth the statement stands."""
    return imports_of(Path(name).parent.parts, path.read_text(encoding="utf-8"))


@functools.cache
def imports_of(package: tuple[str, ...], text: str) -> list[str]:
    """Read a text's imports once for all tests."""
    return list(imported(package, ast.parse(text)))


def imported(package: tuple[str, ...], tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


def is_only_for(name: str, module: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in ONLY_IN[module])


def modules_of(files: list[Source]) -> dict[str, Source]:
    """Return files by the names of their modules; a package's is that of its folder."""
    return {".".join(Path(name).with_suffix("").parts).removesuffix(".__init__"): (name, path) for name, path in files}


def module_in(name: str, modules: Mapping[str, Source]) -> str | None:
    """Return the module that an imported name is of, if that is one of these: `a.b.Name` is in a/b.py."""
    parts = name.split(".")
    return next((module for end in range(len(parts), 0, -1) if (module := ".".join(parts[:end])) in modules), None)


def folder_of(name: str) -> str:
    """Return the folder that a file lies in, as a package: that of a/b/c.py is `a.b`."""
    return ".".join(Path(name).parent.parts)


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Return nodes of which each leads to the one before it; nothing if there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def circle(files: list[Source]) -> list[str]:
    """Return files of which each imports the one before it, imports for type checkers alone among them; nothing if there are none."""
    modules = modules_of(files)
    return circle_in(
        {
            module: {found for name in imports(*source) if (found := module_in(name, modules)) not in (module, None)}
            for module, source in modules.items()
        }
    )


@functools.cache
def rule_in(init: Path) -> set[str]:
    """Read the last paragraph of a package's docstring: the full names of what of ours its files import.

    Raises:
        ValueError: The paragraph says something else.
    """
    docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
    says = " ".join(docstring.rpartition("\n\n")[2].split())
    if not SENTENCE.fullmatch(says):
        raise ValueError(f"{init}: expected a last paragraph like 'Imports `common` and `server.policies.policy`.', received {says!r}")
    names = re.findall(NAME, says)
    return {name if name.split(".")[0] in BESIDE_THE_NAMESPACE else f"{NAMESPACE}.{name}" for name in names}


class Import(NamedTuple):
    """That a file imports a module of ours which lies in another folder."""

    file: str
    module: str
    folder: str


def imports_between(files: list[Source], others: list[Source]) -> dict[str, list[Import]]:
    """Return what the files of each folder import from other folders, those of `others` among them."""
    modules = modules_of([*files, *others])
    found: dict[str, list[Import]] = {folder_of(name): [] for name, _ in files}
    for name, path in files:
        for module in filter(None, (module_in(imported, modules) for imported in imports(name, path))):
            if (folder := folder_of(modules[module][0])) != folder_of(name):
                found[folder_of(name)].append(Import(name, module, folder))
    return found


def refused(found: list[Import], allowed: set[str]) -> list[Import]:
    """Return the imports that no name allows: neither the module's nor its folder's."""
    return [each for each in found if not {each.module, each.folder} & allowed]


def idle(found: list[Import], allowed: set[str]) -> set[str]:
    """Return the names without which no further import would be refused."""
    return {name for name in allowed if refused(found, allowed - {name}) == refused(found, allowed)}


def top_of(name: str) -> str:
    """Return the package at the top that a module or folder belongs to, without the namespace."""
    return name.removeprefix(f"{NAMESPACE}.").split(".")[0]


@functools.cache
def all_imports() -> dict[str, list[Import]]:
    return imports_between([*sources(), *tools()], [(str(path.relative_to(ROOT)), path) for path in (ROOT / "tests").rglob("*.py")])


def folder_circle(rules: Mapping[str, set[str]], excused: Collection[tuple[str, str]]) -> list[str]:
    """Return folders of which each may import from the one before it, but for excused imports; nothing if there are none."""
    named = {folder: {name if name in rules else name.rpartition(".")[0] for name in names} for folder, names in rules.items()}
    return circle_in(
        {
            folder: {other for other in others if not any(folder == own and fnmatch(other, pattern) for own, pattern in excused)}
            for folder, others in named.items()
        }
    )


FOLDERS = {folder_of(name): path.parent / "__init__.py" for name, path in [*sources(), *tools()]}


def rules() -> dict[str, set[str]]:
    """Return what each folder's sentence names."""
    return {folder: rule_in(init) for folder, init in FOLDERS.items()}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_of_ours_what_its_sentence_names(folder: str) -> None:
    assert [f"{each.file} imports {each.module}" for each in refused(all_imports()[folder], rule_in(FOLDERS[folder]))] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_sentence_names_nothing_that_its_files_do_not_need(folder: str) -> None:
    assert idle(all_imports()[folder], rule_in(FOLDERS[folder])) == set()


def test_no_folders_import_each_other_in_a_circle() -> None:
    """Where two have to know each other, one declares a Protocol, or what both need goes into a third."""
    assert folder_circle(rules(), CIRCLES) == []


@pytest.mark.parametrize("excused", CIRCLES, ids="->".join)
def test_a_circle_that_is_excused_is_there(excused: tuple[str, str]) -> None:
    assert folder_circle(rules(), CIRCLES.keys() - {excused})


def test_the_architecture_says_which_package_imports_which_others() -> None:
    """What the sentences of a package's folders come to."""
    named: dict[str, set[str]] = {}
    for folder, names in rules().items():
        named.setdefault(top_of(folder), set()).update(map(top_of, names))
    lines = [f"{package} -> {', '.join(sorted(others - {package})) or 'nothing of ours'}" for package, others in sorted(named.items())]
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert text.partition("## Who may import whom")[2].partition("```\n")[2].partition("```")[0].splitlines() == lines


@pytest.mark.long
def test_the_market_core_imports_arrays_and_settings_alone() -> None:
    allowed = OF_THE_MARKET | (set(sys.stdlib_module_names) - NOT_IN_THE_MARKET)
    wrong = [
        f"{name} imports {module}"
        for name, path in sources()
        if name.startswith(MARKET)
        for module in imports(name, path)
        if not any(within(module, ok) for ok in allowed | {module for module in ONLY_IN if is_only_for(name, module)})
    ]
    assert not wrong


@pytest.mark.long
def test_no_files_import_each_other_in_a_circle() -> None:
    """A reader of one file of a circle has to read all. Where two have to know each other, one declares a Protocol."""
    assert circle([*sources(), *tools()]) == []


@pytest.mark.parametrize("package", OTHERS)
def test_the_client_needs_only_the_base_dependencies(package: str) -> None:
    allowed = OTHERS[package] | set(PACKAGES) | sys.stdlib_module_names
    wrong = [
        f"{name} imports {module}"
        for name, path in sources()
        if name.startswith(f"{package.replace('.', '/')}/")
        for module in imports(name, path)
        if not any(within(module, ok) for ok in allowed)
    ]
    assert not wrong


@pytest.mark.long
@pytest.mark.parametrize("module", ONLY_IN)
def test_a_heavy_or_private_module_is_imported_only_where_it_belongs(module: str) -> None:
    wrong = [
        name
        for name, path in sources()
        if any(within(imported, module) for imported in imports(name, path))
        and not any(fnmatch(name, pattern) for pattern in ONLY_IN[module])
    ]
    assert not wrong, f"{module} may be imported only in {ONLY_IN[module]}"


@pytest.mark.long
def test_no_channel_leaves_it_to_the_environment_whether_a_proxy_is_asked() -> None:
    """`policyserver.common.channels` opens them; who needs another kind of channel passes on what it says about proxies."""
    allowed = PACKAGES["policyserver.common"] / "channels.py"
    everywhere = [
        path
        for folder in (*PACKAGES.values(), BENCHMARKS, ROOT / "deploy", ROOT / "examples", ROOT / "tests")
        for path in folder.rglob("*.py")
    ]
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in everywhere
        if path != allowed and not fnmatch(path.name, "*_pb2*.py") and "secure_channel" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("insecure_channel", "secure_channel"))
        if not re.search(r"\bdirect_options\(|\bDIRECT\b", ast.unparse(node))
    ]
    assert not wrong, "open it by policyserver.common.channels.open_channel"


@pytest.mark.parametrize("root", ["client", "server", "monitoring", "pipelines", "proto"])
def test_a_source_root_and_its_part_of_the_namespace_are_no_packages(root: str) -> None:
    """A package named proto would overwrite Google's proto-plus, and policyserver/__init__.py would hide the four other roots (PEP 420)."""
    assert not (ROOT / root / "__init__.py").exists()
    assert not (ROOT / root / NAMESPACE / "__init__.py").exists()


def test_every_package_folder_is_a_package() -> None:
    for name, path in [*sources(), *tools()]:
        assert (path.parent / "__init__.py").is_file(), f"{name} lies in a folder without __init__.py"


@pytest.mark.long
def test_no_class_name_has_two_meanings() -> None:
    names = [
        node.name for _, path in sources() for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    ]
    assert sorted(names) == sorted(set(names))


@pytest.mark.long
def test_the_public_modules_say_what_they_offer_and_no_others() -> None:
    declare = {
        name
        for name, path in sources()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    }
    assert declare == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_module_offers_what_it_says(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(getattr(module, offered).__doc__ for offered in module.__all__)


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    assert not [name for name, path in sources() if path.stem in sys.stdlib_module_names]


@pytest.mark.long
def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {
        name: lines for name, path in [*sources(), *tools()] if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long, f"more than {MAX_LINES} lines"


def test_every_test_file_begins_with_one_line_that_says_what_it_specifies() -> None:
    """More may follow below that line, after an empty one."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert len(files) > 100
    silent = [str(path.relative_to(ROOT)) for path in files if not FIRST_LINE.match(path.read_text(encoding="utf-8"))]
    assert not silent, "expected a docstring whose first line is a whole sentence"


def test_the_search_for_circles_sees_imports_for_type_checkers_and_names_out_of_files(tmp_path: Path) -> None:
    files = [(name, tmp_path / Path(name).name) for name in ("a/one.py", "a/two.py", "a/three.py")]
    for (_, path), text in zip(files, ["from a.two import Two\n", "from a import three\n", "import sys\n"], strict=True):
        path.write_text(text, encoding="utf-8")
    assert circle(files) == []
    files[2][1].write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.one import One\n", encoding="utf-8")
    assert set(circle(files)) == {"a.one", "a.two", "a.three"}


def test_the_reader_of_imports_sees_absolute_relative_and_late_ones(tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    path.write_text("import ray.rllib\nfrom . import core\nfrom .core import x\ndef f():\n    from torch import nn\n", encoding="utf-8")
    assert sorted(imports("server/probe.py", path)) == ["ray.rllib", "server.core", "server.core.x", "torch.nn"]


def test_the_reader_of_sentences_takes_the_last_paragraph(tmp_path: Path) -> None:
    texts = {
        "Does it. Imports `x`.\n\nImports `common`.": {"policyserver.common"},
        "Does it.\n\nImports `v1`,\n`server.policies.policy` and `tests.ports`.\n": {
            "policyserver.v1",
            "policyserver.server.policies.policy",
            "tests.ports",
        },
        "Does it.\n\nImports nothing of ours.": set(),
    }
    for number, (text, names) in enumerate(texts.items()):
        init = tmp_path / f"{number}.py"
        init.write_text(f'"""{text}"""\n', encoding="utf-8")
        assert rule_in(init) == names


@pytest.mark.parametrize(
    "docstring",
    ["", "Does it.", "Imports `common`.\n\nDoes it.", "Does it.\n\nImports common.", "Does it.\n\nImports `common`, and all of `server`."],
)
def test_the_reader_of_sentences_refuses_any_other(docstring: str, tmp_path: Path) -> None:
    init = tmp_path / "__init__.py"
    init.write_text(f'"""{docstring}"""\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"__init__\.py: expected a last paragraph like"):
        rule_in(init)


@pytest.fixture
def tree(tmp_path: Path) -> list[Source]:
    """Make folders a, a/b and c: the files of a import from a/b and c, and each other."""
    texts = {
        "a/__init__.py": "",
        "a/one.py": "from a import two\nfrom a.b.three import Three\nfrom c import Public\n",
        "a/two.py": "import os\nfrom a.b import four\n",
        "a/b/__init__.py": "",
        "a/b/three.py": "",
        "a/b/four.py": "",
        "c/__init__.py": "class Public: ...\n",
        "c/five.py": "",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return [(name, tmp_path / name) for name in texts]


@pytest.mark.parametrize(
    ("allowed", "wrong", "unused"),
    [
        ({"a.b", "c"}, set(), set()),
        ({"a.b.three", "a.b.four", "c"}, set(), set()),
        ({"a.b.three", "c"}, {"a.b.four"}, set()),
        ({"a.b"}, {"c"}, set()),
        ({"c"}, {"a.b.three", "a.b.four"}, set()),
        ({"a.b", "c", "c.five"}, set(), {"c.five"}),
        ({"a.b", "c", "d"}, set(), {"d"}),
    ],
)
def test_an_import_is_allowed_by_its_module_or_its_folder(tree: list[Source], allowed: set[str], wrong: set[str], unused: set[str]) -> None:
    found = imports_between(tree, [])
    assert found["a.b"] == found["c"] == []
    assert {each.module for each in refused(found["a"], allowed)} == wrong
    assert idle(found["a"], allowed) == unused


def test_a_nested_folder_is_imported_by_itself(tree: list[Source]) -> None:
    assert {each.module for each in refused(imports_between(tree, [])["a"], {"a", "c"})} == {"a.b.three", "a.b.four"}


def test_the_search_for_circles_of_folders_takes_a_module_for_its_folder() -> None:
    rules = {"a": {"b.one", "a.c"}, "b": {"tests.ports"}, "a.c": {"b"}}
    assert folder_circle(rules, []) == []
    rules["b"] = {"a.c.two"}
    assert set(folder_circle(rules, [])) == {"b", "a.c"}
    assert folder_circle(rules, [("b", "a.*")]) == []
    assert set(folder_circle(rules, [("a", "b")])) == {"b", "a.c"}
