"""Every bound that a configuration declares is held, wherever the value comes from, and is named in the error and in the help."""

from __future__ import annotations

import argparse
import importlib
import math
import re
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le

from policyserver.common.bounds import bare, bounds_of, bounds_text
from policyserver.common.settings import Config, SettingsError, add_arguments, from_arguments, load
from policyserver.common.settings_declaration import SettingField, walk
from policyserver.common.settings_toml import format_value
from policyserver.common.settings_values import convert
from policyserver.pipelines.market.priors import Prior

ROOT = Path(__file__).parents[2]

REQUIRED: dict[str, dict[str, Any]] = {
    "InfluxConfig": {"url": "http://localhost:8086", "bucket": "b", "spool_folder": "spool"},
    "Correlated": {"correlation": ((1.0, 0.5), (0.5, 1.0))},
    "MixturePart": {"process": "gbm"},
    "StationaryBootstrap": {"recorded.paths": [str(ROOT / "tests/pipelines/market/files/samples/stooq.csv")]},
}
"""What has to be given besides the setting that is wrong, by dotted keys."""


def config_classes() -> Iterator[type[Config]]:
    for root in ("client", "monitoring", "pipelines", "server"):
        for path in sorted((ROOT / root / "policyserver").rglob("*.py")):
            if re.search(r"^class \w+\((\w*Config|\w*Process|Prior)\):", path.read_text(encoding="utf-8"), re.MULTILINE):
                module = importlib.import_module(".".join(path.relative_to(ROOT / root).with_suffix("").parts))
                classes = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Config)]
                yield from (each for each in classes if each.__module__ == module.__name__ and is_dataclass(each))


CLASSES = list(config_classes())


def bounded(hint: Any) -> Any:
    """Return the `Annotated[X, ...]` of a field's type; None without bounds."""
    return next((arm for arm in (hint, *typing.get_args(hint)) if bounds_of(arm)), None)


FIELDS = [(cls, key, field) for cls in CLASSES for key, field in walk(cls) if bounded(field.hint)]
BOUNDS = [(cls, key, field, bound) for cls, key, field in FIELDS for bound in bounds_of(bounded(field.hint))]


def beyond(kind: Any, bound: Any) -> Any:
    """Return the value next to a bound that is outside."""
    limit = getattr(bound, type(bound).__name__.lower())
    if not isinstance(bound, Ge | Le):
        return limit
    is_lower = isinstance(bound, Ge)
    return limit + (-1 if is_lower else 1) if kind is int else math.nextafter(limit, -math.inf if is_lower else math.inf)


def name_of(part: Any) -> str:
    return "" if isinstance(part, SettingField) else getattr(part, "__name__", str(part))


def as_file_value(kind: Any, value: float) -> Any:
    return {"low": value, "high": value} if kind is Prior else value


@pytest.mark.parametrize(("cls", "key", "field", "bound"), BOUNDS, ids=name_of)
def test_a_value_beyond_a_bound_is_refused_by_its_key_its_source_and_the_bound(
    cls: type[Config], key: str, field: SettingField, bound: Any, tmp_path: Path
) -> None:
    kind, expected = bare(bounded(field.hint)), bounds_text(bounds_of(bounded(field.hint)))
    value = beyond(kind, bound)
    given = REQUIRED.get(cls.__name__, {})

    file = tmp_path / "settings.toml"
    lines = [f"{name} = {format_value(each)}" for name, each in (given | {key: as_file_value(kind, value)}).items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SettingsError) as by_file:
        load(cls, file)
    assert str(by_file.value).startswith(f"{file}: {key}: expected {expected}"), "by file"
    assert f"received {as_file_value(kind, value)!r}" in str(by_file.value)

    with pytest.raises((SettingsError, argparse.ArgumentError)) as by_option:
        load(cls, None, given | parse(cls, key, as_file_value(kind, value)))
    said = str(by_option.value).removeprefix("option: ").removeprefix("argument --")
    assert said.startswith(f"{key}: expected {expected}"), "by option"

    owner = field.owner
    with pytest.raises(SettingsError) as in_python:
        owner(**as_arguments(REQUIRED.get(owner.__name__, {})) | {field.name: Prior.fixed(value) if kind is Prior else value})
    assert str(in_python.value).startswith(f"argument of {owner.__name__}: {field.name}: expected {expected}"), "in Python"


def as_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Return what dotted keys of at most two parts set, as arguments."""
    return {key.partition(".")[0]: {key.partition(".")[2]: value} if "." in key else value for key, value in given.items()}


def parse(cls: type[Config], key: str, value: Any) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, cls)
    options = {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
    return from_arguments(cls, parser.parse_args([f"--{option}={format_value(each)}" for option, each in options.items()]))


@pytest.mark.parametrize(("cls", "key", "field"), FIELDS, ids=name_of)
def test_a_bound_itself_is_taken_where_it_is_part_of_the_range(cls: type[Config], key: str, field: SettingField) -> None:
    kind = bare(bounded(field.hint))
    for bound in bounds_of(bounded(field.hint)):
        limit = getattr(bound, type(bound).__name__.lower())
        inside = limit if isinstance(bound, Ge | Le) else math.nextafter(limit, math.inf if isinstance(bound, Gt) else -math.inf)
        convert(as_file_value(kind, inside), field.hint, key)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_the_help_and_the_documentation_have_the_bounds(cls: type[Config]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, cls)
    said = {option: action.help for action in parser._actions for option in action.option_strings}
    for key, field in walk(cls):
        assert field.doc, f"{key} has no docstring"
        if field.bounds and field.section is None:
            assert f"({field.bounds}" in (said[f"--{key}"] or "")


def test_the_walk_found_the_configurations() -> None:
    assert {"ClientConfig", "ServerConfig", "ServingConfig", "PipelineConfig", "InfluxConfig", "StoreConfig"} <= {
        c.__name__ for c in CLASSES
    }
    assert len({(field.owner, field.name) for _, _, field in FIELDS}) > 70
