"""Modules are imported without the collector, which goes on as before."""

from __future__ import annotations

import gc
import importlib

import pytest

from policyserver.server.processes import quick_imports


def test_the_collector_rests_during_the_import_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr(importlib, "import_module", lambda name: collected.append(gc.isenabled()))
    frozen = gc.get_freeze_count()
    quick_imports.import_quickly("json")
    assert (collected, gc.isenabled()) == ([False], True)
    assert gc.get_freeze_count() > frozen


def test_a_failed_import_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        quick_imports.import_quickly("no_such_module")
    assert gc.isenabled()
