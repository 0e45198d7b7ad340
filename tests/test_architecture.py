"""Who may import whom. Each rule is read off the sources, so that no import at run time has to fail first."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMESPACE = "policyserver"
PACKAGES = {f"{NAMESPACE}.{name}": ROOT / name / NAMESPACE / name for name in ("client", "server", "pipelines", "monitoring")} | {
    f"{NAMESPACE}.{name}": ROOT / "proto" / NAMESPACE / name for name in ("common", "v1")
}

# Package -> what it may import of ours. A name with two dots allows that one module.
OURS = {
    "policyserver.v1": set[str](),
    "policyserver.common": {"policyserver.v1"},
    "policyserver.client": {"policyserver.common", "policyserver.v1"},
    "policyserver.monitoring": {
        "policyserver.common.command_line",
        "policyserver.common.endpoints",
        "policyserver.common.figures",
        "policyserver.common.listening",
        "policyserver.common.settings",
        "policyserver.common.server_stats",
        "policyserver.common.standard_streams",
        "policyserver.common.certificates",
        "policyserver.common.file_lock",
        "policyserver.common.file_permissions",
    },
    "policyserver.server": {"policyserver.common", "policyserver.v1", "policyserver.monitoring"},
    "policyserver.pipelines": {"policyserver.client", "policyserver.common", "policyserver.monitoring"},
}

# Package -> what it may import of others at module level or anywhere else, the standard library apart.
_BASE = {"annotated_types", "grpc", "numpy", "google.protobuf", "gymnasium"}
OTHERS = {"policyserver.common": _BASE, "policyserver.v1": _BASE, "policyserver.client": _BASE}

_OF_BOTH_PROCESSES = ("driver_link", "log_setup", "processor_share", "training_report")
# Folder within the server -> what of the server it may import beside itself.
SERVER_LAYERS = {
    "policies.module": {"policies.policy"},
    "policies.vectorized": {"policies.policy", "policies.module"},
    "policies": set[str](),
    "config": {"policies.module.action_form", "policies.vectorized.scale_images", "runner.env_runner"},
    "episodes": {"policies.policy", "config.serving_config"},
    "grpc_front": {"episodes", "config.serving_config", "training_report"},
    "external_env": {"episodes", "config.serving_config", "runner.serving_loop"},
    "runner": {"config", "episodes", "external_env", "grpc_front", "policies", *_OF_BOTH_PROCESSES},
    "daemon": {"config", "grpc_front", "policies", "runner", *_OF_BOTH_PROCESSES},
}

# The market core is arrays alone: what it may import beside itself and what ONLY_IN allows to a file; and what of the standard library it
# may not, since the same input has to give the same bits.
MARKET = "policyserver/pipelines/market/"
OF_THE_MARKET = {
    "policyserver.pipelines.market",
    "policyserver.common.settings",
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

# What measures the repository, and the only files of the tests that it may import: those that start other programs.
BENCHMARKS = ROOT / "benchmarks"
OF_THE_TESTS = {"tests.browser", "tests.live_server", "tests.ports", "tests.services"}

# Module -> the only files that may import it.
ONLY_IN = {
    "ray": ["policyserver/server/*"],
    "torch": ["policyserver/server/*"],
    "river": ["policyserver/pipelines/forecast/*.py"],
    "influxdb_client": ["policyserver/monitoring/influx/*.py"],
    "pyarrow": ["policyserver/pipelines/market/files/*.py"],
    "exchange_calendars": ["policyserver/pipelines/market/calendars.py"],
    "matplotlib": [],
    "policyserver.v1": [
        "policyserver/common/*",
        "policyserver/v1/*",
        "policyserver/client/*.py",
        "policyserver/server/runner/serving_loop.py",
        "policyserver/server/grpc_front/*.py",
    ],
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


def sources() -> list[tuple[str, Path]]:
    """Return every hand-written module as its path from the package's parent and its file."""
    found = []
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            if not fnmatch(path.name, "*_pb2*.py"):
                found.append((str(Path(*name.split(".")) / path.relative_to(folder)), path))
    return found


def tools() -> list[tuple[str, Path]]:
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


def circle(files: list[tuple[str, Path]]) -> list[str]:
    """Return files of which each imports the one before it, imports for type checkers alone among them; nothing if there are none."""
    modules = {".".join(Path(name).with_suffix("").parts).removesuffix(".__init__"): (name, path) for name, path in files}

    def imported_by(module: str) -> set[str]:
        """Of what a file imports the files: `a.b.Name` is in a/b.py."""
        names = [name.split(".") for name in imports(*modules[module])]
        found = (next((file for end in range(len(name), 0, -1) if (file := ".".join(name[:end])) in modules), module) for name in names)
        return set(found) - {module}

    try:
        TopologicalSorter({module: imported_by(module) for module in modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_the_packages_below_it(package: str) -> None:
    allowed = OURS[package] | {package}
    wrong = [
        f"{name} imports {module}"
        for name, path in sources()
        if name.startswith(f"{package.replace('.', '/')}/")
        for module in imports(name, path)
        if any(within(module, ours) for ours in PACKAGES) and not any(within(module, ok) for ok in allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("layer", SERVER_LAYERS)
def test_a_layer_of_the_server_imports_only_the_layers_below_it(layer: str) -> None:
    allowed = {f"policyserver.server.{module}" for module in SERVER_LAYERS[layer] | {layer}}
    wrong = [
        f"{name} imports {module}"
        for name, path in sources()
        if name.startswith(f"policyserver/server/{layer.replace('.', '/')}/")
        for module in imports(name, path)
        if within(module, "policyserver.server") and not any(within(module, ok) for ok in allowed)
    ]
    assert not wrong


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


def test_the_benchmarks_import_of_the_tests_what_starts_programs_and_nothing_imports_the_benchmarks() -> None:
    wrong = [
        f"{name} imports {module}"
        for name, path in tools()
        for module in imports(name, path)
        if within(module, "tests") and not any(within(module, ok) for ok in OF_THE_TESTS)
    ]
    wrong += [f"{name} imports {module}" for name, path in sources() for module in imports(name, path) if within(module, "benchmarks")]
    assert not wrong


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


@pytest.mark.parametrize("module", ONLY_IN)
def test_a_heavy_or_private_module_is_imported_only_where_it_belongs(module: str) -> None:
    wrong = [
        name
        for name, path in sources()
        if any(within(imported, module) for imported in imports(name, path)) and not is_only_for(name, module)
    ]
    assert not wrong, f"{module} may be imported only in {ONLY_IN[module]}"


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


def test_no_class_name_has_two_meanings() -> None:
    names = [
        node.name for _, path in sources() for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    ]
    assert sorted(names) == sorted(set(names))


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
