"""Labels of Ray's nodes, and selectors of nodes by them, as Ray 2.60 writes and understands them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MOST_LABELS = 32
_MOST_SELECTOR_CHARS = 1024
_MOST_PREFIX_CHARS = 253
_WORD = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_NAME = re.compile(rf"(?:(?P<prefix>{_WORD}(?:\.{_WORD})*)/)?{_WORD}")
_SELECTOR = re.compile(rf"(?P<no>!?)(?:in\((?P<several>{_WORD}(?:, ?{_WORD})*)\)|(?P<one>{_WORD}))")


def check_selector(name: str, selector: Mapping[str, Any]) -> None:
    """Refuse what Ray does not take as a selector of nodes.

    Args:
        name: The setting.
        selector: What each label is to be.

    Raises:
        ValueError: A label or a value is not as Ray has them, or there are too many.
    """
    if len(selector) > _MOST_LABELS:
        raise ValueError(f"{name}: expected at most {_MOST_LABELS} labels, received {len(selector)}")
    for label, wanted in selector.items():
        if (found := _NAME.fullmatch(label)) is None or len(found["prefix"] or "") > _MOST_PREFIX_CHARS:
            raise ValueError(
                f"{name}: expected labels of at most 63 letters, digits, '-', '_' and '.', after a domain and '/' if they have one, "
                f"received {label[:100]!r}"
            )
        is_selector = isinstance(wanted, str) and len(wanted) <= _MOST_SELECTOR_CHARS and _SELECTOR.fullmatch(wanted)
        if not is_selector:
            raise ValueError(
                f"{name}.{label}: expected 'VALUE', '!VALUE', 'in(VALUE, VALUE)' or '!in(VALUE, VALUE)' with values of at most 63 letters, "
                f"digits, '-', '_' and '.', and {_MOST_SELECTOR_CHARS} characters in all, received {str(wanted)[:100]!r}"
            )


def fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Tell whether a node with these labels is one of those that a selector, which was checked, is for."""
    return all(_is_one(labels.get(label), wanted) for label, wanted in selector.items())


def _is_one(value: str | None, wanted: str) -> bool:
    found = _SELECTOR.fullmatch(wanted)
    assert found is not None
    values = found["several"].replace(" ", "").split(",") if found["several"] else [found["one"]]
    return (value in values) is not bool(found["no"])
