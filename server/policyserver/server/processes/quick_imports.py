"""Imports of libraries that take seconds, in less of them."""

from __future__ import annotations

import gc
import importlib


def import_quickly(name: str) -> None:
    """Import a module, and all that it needs, without Python's collector of circles.

    What modules are made of stays. The collector would find nothing among these hundreds of thousands of objects, but look again and again;
    so it leaves them alone from then on, too.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(name)
    finally:
        gc.freeze()
        if collects:
            gc.enable()
