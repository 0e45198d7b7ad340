"""What can be set of the parts of an episode is documented and bounded, and refused by its key beyond its bounds."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from policyserver.common.bounds import bare, bounds_of, bounds_text
from policyserver.common.settings import SettingsError
from policyserver.common.settings_declaration import walk
from policyserver.pipelines.market.registry import Registry
from policyserver.pipelines.market.rules import Rules, RulesConfig
from policyserver.pipelines.market.schemes.actions import ACTIONS
from policyserver.pipelines.market.schemes.ends import ENDS
from policyserver.pipelines.market.schemes.observers import OBSERVERS
from policyserver.pipelines.market.schemes.rewards import REWARDS
from tests.common.test_setting_bounds import beyond, bounded

PARTS = [
    pytest.param(registry, name, cls, id=f"{registry.kind}-{name}")
    for registry in (ACTIONS, OBSERVERS, REWARDS, ENDS)
    for name, cls in registry.classes()
]


@pytest.mark.parametrize(("registry", "name", "cls"), PARTS)
def test_a_setting_beyond_a_bound_is_refused_by_its_key(registry: Registry[Any], name: str, cls: type[Any]) -> None:
    for key, field in walk(cls):
        assert field.doc, f"{key} has no docstring"
        hint = bounded(field.hint)
        for bound in bounds_of(hint):
            value = beyond(bare(hint), bound)
            many = typing.get_origin(bare(field.hint)) is tuple
            with pytest.raises(SettingsError) as refused:
                registry.make({"name": name, key: [value] if many else value}, "rules.part")
            assert str(refused.value).startswith(f"rules.part.{key}")
            assert bounds_text(bounds_of(hint)) in str(refused.value)


@pytest.mark.parametrize(("registry", "name", "cls"), PARTS)
def test_a_part_can_be_chosen_by_its_import_path(registry: Registry[Any], name: str, cls: type[Any]) -> None:
    assert registry.make(f"python:{cls.__module__}.{cls.__name__}", "rules.part") == registry.make(name, "rules.part")


@pytest.mark.parametrize("kind", ["actions", "observers", "rewards", "ends"])
def test_a_part_that_is_none_is_refused_by_its_key(kind: str) -> None:
    named = {"actions": "an action scheme", "observers": "an observer", "rewards": "a reward term", "ends": "an end"}
    for choice, problem in (
        ("nothing", f"expected .* of {named[kind]}, received 'nothing'"),
        ("python:nowhere.Nothing", "expected an import path, received 'python:nowhere.Nothing'"),
        ("python:policyserver.pipelines.market.rules.Rules", "expected a frozen dataclass"),
        ({"bars": 3}, "received None"),
    ):
        chosen: Any = choice if kind == "actions" else (choice,)
        with pytest.raises(SettingsError, match=rf"^rules\.{kind}.*\.name: .*{problem}"):
            Rules.of(RulesConfig(**{kind: chosen}))
