"""The reference of a configuration file: each key with its type, bounds, default and meaning, as the dataclasses declare them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from policyserver.common.settings_declaration import NONE, SettingField, describe, walk
from policyserver.common.settings_toml import format_value


def markdown(path: str) -> str:
    """Return the Markdown for a root class, named as `package.module.Class`: the keys outside of tables first, then table by table."""
    module, _, name = path.rpartition(".")
    tables: dict[str, list[str]] = {"": []}
    for key, field in walk(getattr(importlib.import_module(module), name)):
        if field.section is not None:
            tables[key] = [f"{'###' if '.' in key else '##'} `[{key}]`", "", field.doc, *_sentence(field.bounds), ""]
        else:
            tables[key.rpartition(".")[0]] += _entry(key, field)
    return "\n".join(line for lines in tables.values() for line in lines)


def _sentence(bounds: str) -> list[str]:
    return [f"Its values are {bounds}."] if bounds else []


def _entry(key: str, field: SettingField) -> Iterator[str]:
    default = "must be given" if field.is_required else f"default `{NONE if field.default is None else format_value(field.default)}`"
    yield from (f"`{key}`", f": {'; '.join(filter(None, [describe(field.hint), field.bounds, default]))}.", "", f"  {field.doc}", "")
