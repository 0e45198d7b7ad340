"""The reference of a configuration file: each key with its type, default, bounds and meaning, from the dataclasses that declare it."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Iterator
from typing import Any

from policyserver.common.settings import option_text
from policyserver.common.settings_declaration import SettingField, describe, summary, walk


def markdown(path: str) -> str:
    """Return the Markdown for a root class, named as `package.module.Class`."""
    module, _, name = path.rpartition(".")
    return "\n".join(_lines(getattr(importlib.import_module(module), name)))


def _lines(root: type) -> Iterator[str]:
    for section, entries in itertools.groupby(walk(root, ""), key=lambda entry: entry[0].rpartition(".")[0]):
        fields = list(entries)
        yield f"## `[{section}]`" if section else "## Top level"
        yield ""
        yield summary(fields[0][1].owner)
        yield ""
        for key, field in fields:
            yield from _entry(key, field)


def _entry(key: str, field: SettingField) -> Iterator[str]:
    yield f"`{key}`"
    yield f": {'; '.join(filter(None, [describe(field.hint), _default(field), bounds(field)]))}."
    yield ""
    yield f"  {field.help}"
    yield ""


def _default(field: SettingField) -> str:
    if field.default is dataclasses.MISSING:
        return "must be given"
    return f"default `{option_text(field.default)}`"


def bounds(field: SettingField) -> str:
    """Return a field's bounds in words, as the command line's help has them; empty if it declares none."""
    declared: Any = getattr(field, "bounds", "")
    return str(declared)
