"""The reference of a configuration file: each key with its type, default and meaning, as the dataclasses declare them."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator

from policyserver.common.settings import option_text
from policyserver.common.settings_declaration import SettingField, describe, summary, walk


def markdown(path: str) -> str:
    """Return the Markdown for a root class, named as `package.module.Class`: the keys outside of tables first, then table by table."""
    module, _, name = path.rpartition(".")
    tables: dict[str, list[str]] = {"": []}
    for key, field in walk(getattr(importlib.import_module(module), name), ""):
        table = key.rpartition(".")[0]
        if table not in tables:
            tables[table] = [f"{'###' if '.' in table else '##'} `[{table}]`", "", summary(field.owner), ""]
        tables[table] += _entry(key, field)
    return "\n".join(line for lines in tables.values() for line in lines)


def _entry(key: str, field: SettingField) -> Iterator[str]:
    is_required = field.default is dataclasses.MISSING
    default = "must be given" if is_required else f"default `{option_text(field.default)}`"
    yield from (f"`{key}`", f": {describe(field.hint)}; {default}.", "", f"  {field.help}", "")
