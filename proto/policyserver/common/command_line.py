"""The argument parser of the commands: options in full, one line for a mistake with a suggestion, and `--version`."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
from collections.abc import Sequence
from typing import Any, NoReturn

from policyserver.common.settings_declaration import nearest

_DISTRIBUTION = "rllib-policy-server"


class OptionParser(argparse.ArgumentParser):
    """A parser for a command or, by `add_subparsers`, one of its parts."""

    def __init__(self, **options: Any) -> None:
        """Take what `ArgumentParser` takes. Abbreviated options are unknown: a later option could change what they mean."""
        super().__init__(allow_abbrev=False, **options)
        version = f"{self.prog.split()[0]} {_version()}"
        self.add_argument("--version", action="version", version=version, help="show the version and exit")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, and refuse unknown arguments here, where the known ones can be suggested."""
        parsed, left = super().parse_known_args(args, namespace)
        if left:
            self.error(self._unknown(left))
        return parsed, left

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong; exit status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _unknown(self, left: list[str]) -> str:
        """Say what is wrong with arguments that are left over."""
        option = next((argument.partition("=")[0] for argument in left if argument.startswith("--")), None)
        if option is None:
            return f"unexpected argument {left[0]!r}"
        known = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        near = nearest(option.removeprefix("--").replace("-", "_"), known)
        return f"unknown option {option}" + (f", did you mean {' or '.join(f'--{name}' for name in near)}?" if near else "")


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed, so of no known version)"
