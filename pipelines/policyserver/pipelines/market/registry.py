"""Parts that a configuration chooses by name: shipped ones by a word, a user's own as "python:package.module.Name".

    PROCESSES = Registry("process", PriceProcess, {"ou": "policyserver.pipelines.market.processes.ou.OrnsteinUhlenbeck"})
    process = PROCESSES.make({"name": "ou", "volatility": {"low": 0.01, "high": 0.02}}, "prices.process")

A part is a frozen dataclass that derives from `Config`: its fields are what can be set, each documented and bounded in place, and its
methods are what its kind does. So a part of one's own is one file and one line of TOML.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Generic, TypeVar, cast

from policyserver.common.settings import SettingsError, build

PartT = TypeVar("PartT")

Choice = str | dict[str, Any]
"""A part as a configuration has it: its name, or a table of `name` and what is set of it."""

OBJECT_PREFIX = "python:"
"""Begins the name of a part that is not shipped: its import path follows."""


@dataclass(frozen=True, slots=True)
class Registry(Generic[PartT]):
    """The shipped parts of one kind, and the way to those that are not shipped."""

    kind: str
    """What a part is called in messages: "process", "reward"."""
    base: type[PartT]
    """Class that the parts derive from."""
    shipped: Mapping[str, str]
    """Name to import path, `package.module.Class`; imported when it is chosen, so that a choice costs only itself."""

    def classes(self) -> Iterator[tuple[str, type[PartT]]]:
        """Yield name and class of every shipped part."""
        for name, path in self.shipped.items():
            yield name, cast("type[PartT]", imported(path))

    def make(self, choice: Choice, key: str) -> PartT:
        """Return the part that a configuration chooses.

        Args:
            choice: Its name, or a table with `name`; the other keys of the table are its fields.
            key: Dotted key of the choice, for errors.

        Raises:
            SettingsError: The name is unknown or can't be imported, or a field is unknown, missing, or out of its bounds.
        """
        table = {"name": choice} if isinstance(choice, str) else dict(choice)
        name = table.pop("name", None)
        if not isinstance(name, str):
            raise SettingsError(f"{key}.name", "", f"expected {self._expected()}, received {name!r}")
        return cast("PartT", build(self._class(name, f"{key}.name"), table, key))

    def _class(self, name: str, key: str) -> Any:
        path = name.removeprefix(OBJECT_PREFIX) if name.startswith(OBJECT_PREFIX) else self.shipped.get(name)
        if path is None:
            raise SettingsError(key, "", f"expected {self._expected()}, received {name!r}")
        try:
            found = imported(path)
        except Exception as error:  # importing a module of the user's runs it
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SettingsError(key, "", f"expected an import path, received {name!r}: {reason}") from error
        if not (isinstance(found, type) and is_dataclass(found) and issubclass(found, self.base)):
            raise SettingsError(
                key, "", f"expected a frozen dataclass that derives from {self.base.__name__}, received {name!r}, {found!r}"
            )
        return found

    def _expected(self) -> str:
        return f'{", ".join(self.shipped)}, or "{OBJECT_PREFIX}package.module.Name" of {_with_article(self.kind)}'


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def imported(path: str) -> object:
    """Return the object at `package.module.Name`. Importing a module of the user's runs it, so any exception may come of it."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ImportError(f"{path!r} has no module")
    return getattr(importlib.import_module(module), name)
