"""The reference of a configuration file: each key with its type, default, bounds and meaning, as the dataclasses declare them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from policyserver.common.settings import DeclaredSetting, declared_settings


def markdown(path: str) -> str:
    """Return the Markdown for a root class, named as `package.module.Class`: the keys outside of tables first, then table by table."""
    module, _, name = path.rpartition(".")
    tables: dict[str, list[str]] = {"": []}
    for setting in declared_settings(getattr(importlib.import_module(module), name)):
        if setting.type == "table":
            tables[setting.key] = [f"{'###' if '.' in setting.key else '##'} `[{setting.key}]`", "", setting.doc, ""]
        else:
            tables[setting.key.rpartition(".")[0]] += _entry(setting)
    return "\n".join(line for lines in tables.values() for line in lines)


def _entry(setting: DeclaredSetting) -> Iterator[str]:
    default = f"default `{setting.default}`" if setting.default else "must be given"
    bounds = f", {setting.bounds}" if setting.bounds else ""
    yield from (f"`{setting.key}`", f": {setting.type}{bounds}; {default}.", "", *(f"  {line}" for line in setting.doc.splitlines()), "")
