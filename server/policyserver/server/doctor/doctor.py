"""The command `policy-server doctor`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from policyserver.common.settings import add_arguments, from_arguments, load
from policyserver.common.standard_streams import LastingStream
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.doctor.check import Check, Diagnosis, carry_out
from policyserver.server.processes.log_setup import log_to

EXIT_FAULT, EXIT_WARNINGS = 1, 3

_COLUMNS = (8, 24, 64)
"""Widths of the level, the name and what was found."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command, each key of a configuration file among them."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML); options are stronger")
    add_arguments(parser, ServerConfig)
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="folder of the checkpoint that is to be served without a learner")
    parser.add_argument(
        "--grafana", metavar="URL", help="Grafana whose data source is looked at, by the token in GRAFANA_TOKEN; or GRAFANA_URL"
    )
    parser.add_argument("--strict", action="store_true", help=f"end with status {EXIT_WARNINGS} where there are warnings, but no fault")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(parsed: argparse.Namespace, out: LastingStream, environment: Mapping[str, str] = os.environ) -> int:
    """Look at everything, and print what was found.

    Returns:
        0 where a start would succeed, `EXIT_FAULT` where it would not, with `--strict` `EXIT_WARNINGS` for what should be looked into.
    """
    log_to("ERROR")
    findings = []
    if not parsed.json:
        out.write(_line("", "checked", "found", "what to do"))
    for finding in _findings(parsed, environment):
        findings.append(finding)
        if not parsed.json:
            out.write(_line(finding.level, finding.name, finding.found, finding.advice))
            out.flush()
    counts = {level: sum(finding.level == level for finding in findings) for level in ("fault", "warning")}
    if parsed.json:
        out.write(
            f"{json.dumps({'faults': counts['fault'], 'warnings': counts['warning'], 'checks': [*map(asdict, findings)]}, indent=1)}\n"
        )
    else:
        out.write(f"{counts['fault']} faults, {counts['warning']} warnings, {len(findings)} checks\n")
    out.flush()
    if counts["fault"] or out.reason:
        return EXIT_FAULT
    return EXIT_WARNINGS if counts["warning"] and parsed.strict else 0


def _findings(parsed: argparse.Namespace, environment: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Carry out one check after the other."""
    from policyserver.server.doctor import configuration, machine, services  # which import half of the server

    loaded: list[ServerConfig] = []

    def read() -> str:
        loaded.append(load(ServerConfig, parsed.config, from_arguments(ServerConfig, parsed)))
        return f"{parsed.config} can be read" if parsed.config is not None else "the defaults, and options"

    yield carry_out(Check("configuration", read, "correct the key that the message names; `policy-server check-config` prints all"))
    config = loaded[0] if loaded else ServerConfig()
    yield from map(carry_out, machine.checks(learns=config.learner.enabled, max_clients=config.listen.max_clients))
    if not loaded:
        return
    yield from map(carry_out, configuration.checks(config, parsed.checkpoint))
    grafana = parsed.grafana or environment.get("GRAFANA_URL")
    yield from map(carry_out, services.checks(config, grafana, environment.get("GRAFANA_TOKEN", "")))


def _line(*cells: str) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _COLUMNS, strict=False)]
    return f"{'  '.join([*padded, *cells[len(_COLUMNS) :]]).rstrip()}\n"
