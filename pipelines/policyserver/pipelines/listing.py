"""What can be chosen by name: `policy-pipeline processes` and `policy-pipeline schemes`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from policyserver.common.settings import format_value
from policyserver.common.settings_declaration import NONE, fields_of
from policyserver.pipelines.forecast.river_objects import regressors
from policyserver.pipelines.market.processes import PROCESSES
from policyserver.pipelines.market.registry import OBJECT_PREFIX, Registry
from policyserver.pipelines.market.risk import LIMITS
from policyserver.pipelines.market.schemes.actions import ACTIONS
from policyserver.pipelines.market.schemes.ends import ENDS
from policyserver.pipelines.market.schemes.observers import OBSERVERS
from policyserver.pipelines.market.schemes.rewards import REWARDS


def processes() -> str:
    """Return the price processes with what can be set of them, as text."""
    return _listed("process", "prices.process", PROCESSES)


def schemes() -> str:
    """Return the action schemes, observers, reward terms, ends, limits on risk and regressors with what can be set of them, as text."""
    kinds: tuple[tuple[str, str, Registry[Any]], ...] = (
        ("action scheme", "rules.actions", ACTIONS),
        ("observer", "rules.observers", OBSERVERS),
        ("reward term", "rules.rewards", REWARDS),
        ("end", "rules.ends", ENDS),
        ("limit on risk", "rules.risk", LIMITS),
    )
    return "\n".join([*(_listed(*kind) for kind in kinds), _regressors()])


def _listed(kind: str, key: str, registry: Registry[Any]) -> str:
    """Return the parts of one kind, then how one's own is chosen."""
    lines = [f"{key}: a {kind} by its name, or a table of its name and settings"]
    for name, part in registry.classes():
        lines.append(f"  {name}: {_summary(part)}")
        lines += [f"    {line}" for line in _settings(part)]
    lines.append(f'  "{OBJECT_PREFIX}package.module.Name": a {registry.base.__name__} of your own')
    return "\n".join(lines) + "\n"


def _regressors() -> str:
    """Return River's regressors, then how one's own is chosen."""
    lines = ["regressor.model: a River regressor, or a pipeline that ends in one, by its name, or a table of name and parameters"]
    for path, part, parameters in regressors():
        lines.append(f"  {path}: {_summary(part)}")
        lines += [f"    {parameter}" for parameter in parameters]
    lines.append(f'  "{OBJECT_PREFIX}package.module.Name": a regressor of your own, of river.base.Regressor')
    return "\n".join(lines) + "\n"


def _summary(part: type) -> str:
    return (inspect.getdoc(part) or part.__name__).partition("\n\n")[0].replace("\n", " ")


def _settings(part: type) -> Iterator[str]:
    for name, field in fields_of(part).items():
        default = "" if field.is_required else f" = {NONE if field.default is None else format_value(field.default)}"
        bounds = f" ({field.bounds})" if field.bounds else ""
        yield f"{name}{default}{bounds}: {field.doc}"
