"""River objects as a configuration has them: nested tables, each with the `name` of its class and its parameters.

    make({"name": "river.linear_model.LinearRegression", "optimizer": {"name": "river.optim.Adam", "lr": 0.01}}, "regressor.model")

Only classes of River are imported by a plain name; anything else has to be named as the user's own, by `python:package.module.Name`.
"""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import pkgutil
import sys
import types
import typing
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Union

import river
from river import base, compose

from policyserver.common.settings import SettingsError, format_value
from policyserver.common.settings_declaration import NONE, join
from policyserver.pipelines.market.registry import OBJECT_PREFIX, Choice, imported

_RIVER = "river."
_NOT_LISTED = frozenset({"base", "checks", "datasets", "test"})
_EXPECTED = f'"{_RIVER}package.Class", or "{OBJECT_PREFIX}package.module.Class" of your own'
_NUMBERS: dict[object, tuple[type, ...]] = {float: (float, int), int: (int,)}


def make(choice: Choice, key: str) -> Any:
    """Return the object that a configuration describes.

    A table with a `name` stands for an object of that class, its other keys for the parameters; a text that begins with "river." for one
    without parameters. A parameter that takes any number of values is a list. The text "none" stands for None where a parameter may be
    that. A text that begins with "python:" stands for the Python object of that import path. A `seed` that is not given is a function of
    the object's place, so that the same configuration draws the same random numbers.

    Args:
        choice: Name of the class, or a table of `name` and parameters.
        key: Dotted key of the choice, for errors.

    Raises:
        SettingsError: A class is not River's and not named as the user's own, or can't be imported; a parameter is unknown, missing
            or of another type; or the class refuses them.
    """
    table = {"name": choice} if isinstance(choice, str) else dict(choice)
    name = table.pop("name", None)
    made_class = _class(name, f"{key}.name")
    taken = {each.name: each for each in _parameters(made_class)}
    for unknown in table.keys() - taken.keys():
        known = ", ".join(taken) or "no parameter"
        raise SettingsError(join(key, unknown), "", f"expected a parameter of {name} ({known}), received {unknown!r}")
    hints = _hints(made_class, taken)
    positional: list[Any] = []
    arguments: dict[str, Any] = {}
    for each in taken.values():
        place = join(key, each.name)
        if each.name not in table:
            if each.kind is not each.VAR_POSITIONAL and each.default is each.empty:
                raise SettingsError(place, "", f"expected a value, which {name} needs, received none")
            if each.name == "seed" and each.default is None:
                arguments["seed"] = zlib.crc32(key.encode())
        elif each.kind is each.VAR_POSITIONAL:
            positional = _values(table[each.name], hints[each.name], place)
        else:
            arguments[each.name] = _value(table[each.name], hints[each.name], each.default, place)
    try:
        return made_class(*positional, **arguments)
    except Exception as error:
        raise SettingsError(key, "", f"expected parameters that {name} takes, received {table}: {line_of(error)}") from error


def make_regressor(choice: Choice, key: str) -> Any:
    """Return the River regressor, or the pipeline that ends in one, that a configuration describes.

    Raises:
        SettingsError: It is neither, or see `make`.
    """
    made = make(choice, key)
    last = list(made.steps.values())[-1:] if isinstance(made, compose.Pipeline) else [made]
    if not (last and isinstance(last[0], base.Regressor)):
        received = type(made).__name__ + (f" that ends in {type(last[0]).__name__}" if last and last[0] is not made else "")
        raise SettingsError(key, "", f"expected a River regressor, or a pipeline that ends in one, received {received}")
    return made


def regressors() -> Iterator[tuple[str, type, list[str]]]:
    """Yield River's regressors, and its pipeline: import path, class, and each parameter with its type and default."""
    found: dict[str, type] = {f"{_RIVER}compose.Pipeline": compose.Pipeline}
    for module in pkgutil.iter_modules(river.__path__):
        if module.name in _NOT_LISTED:
            continue
        try:
            package = importlib.import_module(_RIVER + module.name)
        except ImportError:  # needs what is not installed
            continue
        for name in sorted(getattr(package, "__all__", ())):
            part = getattr(package, name, None)
            if inspect.isclass(part) and issubclass(part, base.Regressor) and not inspect.isabstract(part):
                found[f"{_RIVER}{module.name}.{name}"] = part
    for path, part in found.items():
        yield path, part, [_parameter_text(each) for each in _parameters(part)]


def _parameter_text(parameter: inspect.Parameter) -> str:
    hint = "" if parameter.annotation is parameter.empty else f": {parameter.annotation}"
    default = "" if parameter.default is parameter.empty else f" = {NONE if parameter.default is None else format_value(parameter.default)}"
    return f"{parameter.name}{': list' if parameter.kind is parameter.VAR_POSITIONAL else hint}{default}"


def line_of(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _class(name: object, key: str) -> type:
    if not (isinstance(name, str) and name.startswith((_RIVER, OBJECT_PREFIX))):
        raise SettingsError(key, "", f"expected {_EXPECTED}, received {'none' if name is None else repr(name)}")
    found = _imported(name, key)
    is_own = name.startswith(OBJECT_PREFIX)
    if not (isinstance(found, type) and (is_own or (issubclass(found, base.Base) and found.__module__.startswith(_RIVER)))):
        raise SettingsError(key, "", f"expected {'a class' if is_own else 'a class of River'}, received {name!r}, {found!r}")
    return found


def _imported(name: str, key: str) -> object:
    try:
        return imported(name.removeprefix(OBJECT_PREFIX))
    except Exception as error:  # importing a module of the user's runs it
        raise SettingsError(key, "", f"expected {_EXPECTED}, received {name!r}: {line_of(error)}") from error


def _parameters(made_class: type) -> list[inspect.Parameter]:
    """Return what a table may give: no `**arguments`, whose names are not known."""
    try:
        parameters = inspect.signature(made_class).parameters.values()
    except ValueError:  # of a class that is not written in Python
        return []
    return [each for each in parameters if each.kind is not each.VAR_KEYWORD]


def _hints(made_class: type, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the type of each parameter; Any where it has none, or one that only a type checker can find."""
    module = sys.modules[made_class.__module__]
    hints: dict[str, Any] = {}
    for name, parameter in parameters.items():
        holder = types.SimpleNamespace(__annotations__={} if parameter.annotation is parameter.empty else {name: parameter.annotation})
        try:
            hints[name] = typing.get_type_hints(holder, vars(module)).get(name, Any)
        except (NameError, AttributeError, TypeError):
            hints[name] = Any
    return hints


def _value(value: Any, hint: Any, default: Any, key: str) -> Any:
    """Return a parameter's value, its tables made into objects.

    Raises:
        SettingsError: It is not of the parameter's type.
    """
    if value == NONE and (default is None or _fits(None, hint)):
        return None
    if isinstance(value, str) and value.startswith(OBJECT_PREFIX):
        return _imported(value, key)
    made: Any = value
    if isinstance(value, str) and value.startswith(_RIVER):
        made = make(value, key)
    elif isinstance(value, Mapping):
        if "name" in value or not _takes_tables(hint):
            made = make(dict(value), key)
    elif isinstance(value, list | tuple):
        made = _values(value, _item_hint(hint), key)
    if not (made is None or _fits(made, hint)):
        received = type(made).__name__ if made is not value and not isinstance(made, list) else repr(value)
        raise SettingsError(key, "", f"expected {_text(hint)}{f' or {NONE}' if default is None else ''}, received {received}")
    return made


def _values(value: Any, hint: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise SettingsError(key, "", f"expected a list, received {value!r}")
    return [_value(item, hint, inspect.Parameter.empty, f"{key}[{place}]") for place, item in enumerate(value)]


def _arms(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _item_hint(hint: Any) -> Any:
    lists = [arm for arm in _arms(hint) if typing.get_origin(arm) in (list, set, collections.abc.Sequence)]
    return typing.get_args(lists[0])[0] if len(lists) == 1 else Any


def _takes_tables(hint: Any) -> bool:
    return any((typing.get_origin(arm) or arm) in (dict, Mapping) for arm in _arms(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, as far as that can be told."""
    for arm in _arms(hint):
        origin = typing.get_origin(arm) or arm
        if origin is typing.Literal:
            fits = value in typing.get_args(arm)
        elif arm in (int, float):
            fits = isinstance(value, _NUMBERS[arm]) and not isinstance(value, bool)
        elif arm is types.NoneType:
            fits = value is None
        elif origin in (tuple, set, frozenset, collections.abc.Sequence):
            fits = isinstance(value, list)  # TOML has no other
        else:
            fits = origin is Any or not isinstance(origin, type) or isinstance(value, origin)
        if fits:
            return True
    return False


def _text(hint: Any) -> str:
    arms = [arm for arm in _arms(hint) if arm is not types.NoneType]
    return " or ".join(arm.__name__ if isinstance(arm, type) and not typing.get_args(arm) else str(arm) for arm in arms)
