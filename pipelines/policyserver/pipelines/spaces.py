"""`policy-pipeline spaces --config FILE`: the tables of spaces that a server's settings need for a pipeline's rules."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from policyserver.common.settings import add_arguments, format_value, from_arguments, load
from policyserver.pipelines.config import PipelineConfig
from policyserver.pipelines.market.rules import Rules
from policyserver.pipelines.market.space_tables import server_tables
from policyserver.pipelines.prices.config import make_slots


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options: those of `policy-pipeline run`, so that what runs can be asked about."""
    parser.add_argument("--config", type=Path, help="TOML file of a pipeline; without one, the defaults")
    add_arguments(parser, PipelineConfig)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the tables as TOML that can be appended to a server's file; return 0.

    Raises:
        SettingsError: A setting is wrong, or a server has no table for the actions.
    """
    config = load(PipelineConfig, options.config, from_arguments(PipelineConfig, options))
    tables = server_tables(Rules.of(config.rules), make_slots(config.prices))
    for key, table in tables.items():
        lines = "\n".join(f"{name} = {format_value(value)}" for name, value in table.items())
        sys.stdout.write(f"\n[{key}]\n{lines}\n")
    return 0
