"""The reference of a configuration file: each key with its type, bounds, default and meaning, as the dataclasses declare them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from policyserver.common.settings import DeclaredSetting, declared_settings


def markdown(path: str) -> str:
    """Return the Markdown for a root class, named as `package.module.Class`: the keys outside of tables first, then table by table."""
    module, _, name = path.rpartition(".")
    tables: dict[str, list[str]] = {"": []}
    for setting in declared_settings(getattr(importlib.import_module(module), name)):
        if _is_section(setting):
            tables[setting.key] = [
                f"{'###' if '.' in setting.key else '##'} `[{setting.key}]`",
                "",
                setting.doc,
                *_sentence(setting.bounds),
                "",
            ]
        else:
            tables[setting.key.rpartition(".")[0]] += _entry(setting)
    return "\n".join(line for lines in tables.values() for line in lines)


def _is_section(setting: DeclaredSetting) -> bool:
    """Tell a table whose keys are declared from one that takes any."""
    return setting.type == "table" and not setting.default


def _sentence(bounds: str) -> list[str]:
    return [f"Its values are {bounds}."] if bounds else []


def _entry(setting: DeclaredSetting) -> Iterator[str]:
    default = f"default `{setting.default}`" if setting.default else "must be given"
    yield from (f"`{setting.key}`", f": {'; '.join(filter(None, [setting.type, setting.bounds, default]))}.", "", f"  {setting.doc}", "")
