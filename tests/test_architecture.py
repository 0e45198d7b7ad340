"""Who may import whom. Each rule is read off the sources, so that no import at run time has to fail first."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
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
        "policyserver.common.umask",
    },
    "policyserver.server": {"policyserver.common", "policyserver.v1", "policyserver.monitoring"},
    "policyserver.pipelines": {"policyserver.client", "policyserver.common", "policyserver.monitoring"},
}

# Package -> what it may import of others at module level or anywhere else, the standard library apart.
_BASE = {"grpc", "numpy", "google.protobuf", "gymnasium"}
OTHERS = {"policyserver.common": _BASE, "policyserver.v1": _BASE, "policyserver.client": _BASE}

_OF_BOTH_PROCESSES = ("driver_link", "log_setup", "processor_share", "training_report")
# Folder within the server -> what of the server it may import beside itself.
SERVER_LAYERS = {
    "policies.module": {"policies.policy"},
    "policies.vectorized": {"policies.policy", "policies.module"},
    "policies": set[str](),
    "config": {"policies.module.action_form", "policies.vectorized.scale_images", "runner.env_runner"},
    "episodes": {"policies.policy", "config.server_config"},
    "grpc_front": {"episodes", "config.server_config", "training_report"},
    "external_env": {"episodes", "config.server_config", "runner.serving_loop"},
    "runner": {"config", "episodes", "external_env", "grpc_front", "policies", *_OF_BOTH_PROCESSES},
    "daemon": {"config", "grpc_front", "policies", "runner", *_OF_BOTH_PROCESSES},
}

# Module -> the only files that may import it.
ONLY_IN = {
    "ray": ["policyserver/server/*"],
    "torch": ["policyserver/server/*"],
    "river": ["policyserver/pipelines/regressor.py"],
    "influxdb_client": ["policyserver/monitoring/influx/*.py"],
    "policyserver.v1": [
        "policyserver/common/*",
        "policyserver/v1/*",
        "policyserver/client/*.py",
        "policyserver/server/runner/serving_loop.py",
        "policyserver/server/grpc_front/*.py",
    ],
}

MAX_LINES = 400


def sources() -> list[tuple[str, Path]]:
    """Return every hand-written module as its path from the package's parent and its file."""
    found = []
    for name, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            if not fnmatch(path.name, "*_pb2*.py"):
                found.append((str(Path(*name.split(".")) / path.relative_to(folder)), path))
    return found


def imports(name: str, path: Path) -> Iterator[str]:
    """Yield every module that a file imports, relative ones resolved, at whatever depth the statement stands."""
    package = Path(name).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(module: str, allowed: str) -> bool:
    return module == allowed or module.startswith(f"{allowed}.")


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
        if any(within(imported, module) for imported in imports(name, path))
        and not any(fnmatch(name, pattern) for pattern in ONLY_IN[module])
    ]
    assert not wrong, f"{module} may be imported only in {ONLY_IN[module]}"


def test_no_channel_leaves_it_to_the_environment_whether_a_proxy_is_asked() -> None:
    """`policyserver.common.channels` opens them; who needs another kind of channel passes on what it says about proxies."""
    allowed = PACKAGES["policyserver.common"] / "channels.py"
    everywhere = [
        path for folder in (*PACKAGES.values(), ROOT / "deploy", ROOT / "examples", ROOT / "tests") for path in folder.rglob("*.py")
    ]
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in everywhere
        if path != allowed and not fnmatch(path.name, "*_pb2*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
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
    for name, path in sources():
        assert (path.parent / "__init__.py").is_file(), f"{name} lies in a folder without __init__.py"


def test_no_class_name_has_two_meanings() -> None:
    names = [
        node.name for _, path in sources() for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)
    ]
    assert sorted(names) == sorted(set(names))


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    assert not [name for name, path in sources() if path.stem in sys.stdlib_module_names]


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {name: lines for name, path in sources() if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES}
    assert not long, f"more than {MAX_LINES} lines"


def test_the_reader_of_imports_sees_absolute_relative_and_late_ones(tmp_path: Path) -> None:
    path = tmp_path / "probe.py"
    path.write_text("import ray.rllib\nfrom . import core\nfrom .core import x\ndef f():\n    from torch import nn\n", encoding="utf-8")
    assert sorted(imports("server/probe.py", path)) == ["ray.rllib", "server.core", "server.core.x", "torch.nn"]
