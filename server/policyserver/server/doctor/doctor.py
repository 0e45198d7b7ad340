"""The command `policy-server doctor`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from policyserver.common.settings import Mended, SettingsError, add_arguments, from_arguments, load_mended, reason_of
from policyserver.common.standard_streams import LastingStream
from policyserver.server.config.server_config import ServerConfig
from policyserver.server.doctor.check import Check, Diagnosis, carry_out
from policyserver.server.processes.log_setup import log_to

EXIT_FAULT, EXIT_WARNINGS = 1, 3

_KEY_ADVICE = "correct the key that the message names; `policy-server check-config` prints all"

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
    """Carry out one check after the other; those of settings that can't be used are skipped."""
    from policyserver.server.doctor import cluster, configuration, machine, services  # which import half of the server

    read: list[Mended[ServerConfig]] = []

    def look() -> str:
        read.append(load_mended(ServerConfig, parsed.config, from_arguments(ServerConfig, parsed)))
        if read[0].faults:
            raise read[0].faults[0]
        return f"{parsed.config} can be read" if parsed.config is not None else "the defaults, and options"

    found = carry_out(Check("configuration", look, _KEY_ADVICE))
    mended = read[0] if read else Mended(ServerConfig(), (), frozenset({""}))  # it could not be read in time
    yield dataclasses.replace(found, advice=_advice_of(mended.faults[0])) if mended.faults else found
    for number, fault in enumerate(mended.faults[1:], 2):
        yield Diagnosis(f"configuration, fault {number}", "fault", " ".join(reason_of(fault).split()), _advice_of(fault))
    config, grafana = mended.settings, parsed.grafana or environment.get("GRAFANA_URL")
    for check in (
        *machine.checks(learns=config.learner.enabled, max_clients=config.listen.max_clients),
        *configuration.checks(config, parsed.checkpoint),
        *cluster.checks(config),
        *services.checks(config, grafana, environment.get("GRAFANA_TOKEN", "")),
    ):
        unknown = [setting for setting in check.settings if mended.is_replaced(setting)]
        if unknown:
            yield Diagnosis(check.name, "skipped", f"needs {', '.join(unknown)}, of which the configuration has a fault, see there", "")
        else:
            yield carry_out(check)


def _advice_of(fault: SettingsError) -> str:
    """Return what to do about a fault of the configuration."""
    match fault.__cause__:
        case FileNotFoundError():
            return "name a file that is there; `policy-server check-config > server.toml` writes one with every default"
        case OSError():
            return "name a file that this user can read, or let it: `chown`, or `chmod u+r`"
        case tomllib.TOMLDecodeError() | UnicodeDecodeError():
            return "correct the line that the message names: TOML has text in quotation marks, and true and false in lower case"
    return _KEY_ADVICE


def _line(*cells: str) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, _COLUMNS, strict=False)]
    return f"{'  '.join([*padded, *cells[len(_COLUMNS) :]]).rstrip()}\n"
