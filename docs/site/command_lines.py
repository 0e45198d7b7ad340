"""The reference of the command lines, from their parsers."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

MODULES = {
    "policy-server": "policyserver.server.__main__",
    "policy-pipeline": "policyserver.pipelines.__main__",
    "policy-monitor": "policyserver.monitoring.__main__",
}
"""Where each command's parser is made, by a function `make_parser`."""


def markdown(program: str) -> str:
    """Return the Markdown of one command with its parts; options that are configuration keys are left to the reference of the keys."""
    parser: argparse.ArgumentParser = importlib.import_module(MODULES[program]).make_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return "\n".join(line for name, part in commands.choices.items() for line in _part(program, name, helps.get(name, ""), part))


def _part(program: str, name: str, meaning: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"### `{program} {name}`", "", f"{meaning[:1].upper()}{meaning[1:]}.", "")
    actions = [action for action in parser._actions if action.option_strings and action.dest not in ("help", "version")]
    takes_file = any(action.dest == "config" for action in actions)
    keys = [action for action in actions if takes_file and action.default is argparse.SUPPRESS]
    for action in actions:
        if action in keys:
            continue
        yield f"`{_usage(action)}`"
        yield f": {(action.help or '').replace('%%', '%')}{'' if not action.required else ' Required.'}"
        yield ""
    if keys:
        yield "Each key of the configuration file is an option, too: `--KEY VALUE`."
        yield ""
    for nested in parser._actions:
        if isinstance(nested, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in nested._choices_actions}
            for inner, part in nested.choices.items():
                yield from _part(f"{program} {name}", inner, helps.get(inner, ""), part)


def _usage(action: argparse.Action) -> str:
    option = action.option_strings[-1]
    if action.nargs == 0:
        return option
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return f"{option} {value}"
