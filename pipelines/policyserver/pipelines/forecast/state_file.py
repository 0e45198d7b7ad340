"""The file of what a forecaster has learnt: written by one run into its folder, and begun with by a later one.

    policyserver forecast state 2       the format and its version
    4f1c...                             SHA-256 of all that follows
    {"river": "0.26.1", ...}            a line of JSON: by what it was learnt, and from what
    ...                                 the models, each a pickle

A pickle is code: unpickling a file runs what its writer wanted. So a file is read only where a setting names it, and what the line of JSON
says is compared before anything is unpickled. The SHA-256 in the file tells a damaged file from a whole one, but no forged one from an
honest one: for that there is `regressor.state_sha256`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from policyserver.common.settings import SettingsError
from policyserver.common.whole_file import writing_whole
from policyserver.pipelines.forecast.regressor import Learnt, RegressorConfig
from policyserver.pipelines.forecast.river_objects import line_of
from policyserver.pipelines.market.intervals import interval_text

STATE_FILE = "forecast.state"
"""Name of the file in a run's folder."""

VERSION = 2
"""Of the format."""

KEY = "regressor.state"
"""Key of the setting that names a file, for errors."""

TARGET = "log-return of the next bar"
"""What is forecast, and how far ahead."""

_MAGIC = b"policyserver forecast state "
_OF_THE_MODEL = ("model", "scale_features", "learning_rate", "learning_rate_power", "memory_steps")

_SAME_LENGTH = 0.15
"""Lengths of bars that differ by at most this fraction are the same: months are."""

Kind = Literal["blocks", "symbols"]
"""Whose models they are: of a run's blocks of simulated episodes, by their numbers; or of recorded symbols, by their names."""


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model as the file has it."""

    pickled: bytes
    """A pickle of `Learnt`."""
    learned: int
    """Labels learnt."""
    until_ns: int | None = None
    """Of a symbol: end of the newest bar that was learnt, nanoseconds since 1970."""

    @classmethod
    def of(cls, learnt: Learnt, until_ns: int | None = None) -> KeptModel:
        """Pickle what a model has learnt, as it is now.

        Raises:
            Exception: It can't be pickled.
        """
        return cls(pickle.dumps(learnt), learnt.learned, until_ns)

    def learnt(self) -> Learnt:
        """Unpickle a copy.

        Raises:
            Exception: It can't be unpickled; what a pickle raises can be anything.
        """
        learnt = pickle.loads(self.pickled)
        if not isinstance(learnt, Learnt):
            raise TypeError(f"expected what a model has learnt, received {type(learnt).__name__}")
        return learnt


@dataclass(frozen=True, slots=True)
class ForecastState:
    """What the forecaster of a run has learnt."""

    kind: Kind
    models: Mapping[str, KeptModel]
    """The models, by number of the block or by symbol."""
    features: tuple[str, ...]
    """What forecasts are made from, in order."""
    window_bars: int
    """Bars of an episode, warm-up included: of as many is the mean from which `distance_slow` is."""
    regressor: Mapping[str, Any]
    """The settings that make the model."""
    bar_intervals_ns: Mapping[str, int]
    """By symbol, the usual time from one bar to the next, nanoseconds; symbols without a usual one are left out."""
    episodes: Mapping[int, int] = field(default_factory=dict)
    """Of blocks: by seed of the episodes, the number of the first one of which none was learnt."""
    target: str = TARGET
    river: str = field(default_factory=lambda: importlib.metadata.version("river"))
    """River's version."""
    data: bytes = field(default=b"", repr=False)
    """The bytes of the file that it was read from."""

    @property
    def learned(self) -> int:
        """Labels learnt."""
        return sum(model.learned for model in self.models.values())

    def to_bytes(self) -> bytes:
        """Return the bytes of the file."""
        payload = b"".join(model.pickled for model in self.models.values())
        header = {
            "river": self.river,
            "target": self.target,
            "features": self.features,
            "window_bars": self.window_bars,
            "regressor": self.regressor,
            "bar_intervals_ns": dict(self.bar_intervals_ns),
            "kind": self.kind,
            "models": [
                {"of": of, "learned": model.learned, "until_ns": model.until_ns, "n_bytes": len(model.pickled)}
                for of, model in self.models.items()
            ],
            "episodes": [{"seed": seed, "before": before} for seed, before in self.episodes.items()],
        }
        rest = json.dumps(header).encode() + b"\n" + payload
        return b"%s%d\n%s\n%s" % (_MAGIC, VERSION, hashlib.sha256(rest).hexdigest().encode(), rest)

    @classmethod
    def from_bytes(cls, data: bytes) -> ForecastState:
        """Read what `to_bytes` made, without unpickling anything.

        Raises:
            ValueError: It is something else, of another version, or damaged.
        """
        first, _, rest = data.partition(b"\n")
        if not first.startswith(_MAGIC):
            raise ValueError(f"expected a forecast state, received a file that begins with {first[:32]!r}")
        version = first.removeprefix(_MAGIC).decode("ascii", "replace")
        if version != str(VERSION):
            raise ValueError(f"expected a forecast state of version {VERSION}, received version {version}")
        digest, _, rest = rest.partition(b"\n")
        if (found := hashlib.sha256(rest).hexdigest()) != (written := digest.decode("ascii", "replace")):
            raise ValueError(f"expected SHA-256 {written}, as was written, received {found}: the file is damaged")
        line, _, payload = rest.partition(b"\n")
        try:
            header = json.loads(line)
            models, position = {}, 0
            for each in header["models"]:
                pickled = payload[position : position + each["n_bytes"]]
                models[each["of"]] = KeptModel(pickled, each["learned"], each["until_ns"])
                position += len(pickled)
            return cls(
                header["kind"],
                models,
                tuple(header["features"]),
                header["window_bars"],
                header["regressor"],
                {str(symbol): int(interval) for symbol, interval in header["bar_intervals_ns"].items()},
                {each["seed"]: each["before"] for each in header["episodes"]},
                header["target"],
                header["river"],
                data,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a forecast state, received one of another form: {line_of(error)}") from error

    def write(self, path: Path) -> None:
        """Put the file in the place of the one there, whole or not at all.

        Raises:
            OSError: It can't be written.
        """
        with writing_whole(path) as part, part.open("wb") as file:
            file.write(self.to_bytes())
            file.flush()
            os.fsync(file.fileno())

    def require(self, wanted: ForecastState) -> None:
        """Refuse to go on from this with what a run is configured for.

        Args:
            wanted: What the run would save, its models left out.

        Raises:
            SettingsError: A version, the target, the features, the regressor's settings, the kind of prices or the bars' length differ; the
                first is named.
        """
        pairs: list[tuple[str, Any, Any]] = [
            ("River", wanted.river, self.river),
            ("target", wanted.target, self.target),
            ("features", list(wanted.features), list(self.features)),
            ("episodes' bars, warm-up included,", wanted.window_bars, self.window_bars),
        ]
        names = [*wanted.regressor, *(name for name in self.regressor if name not in wanted.regressor)]
        pairs += [(f"regressor.{name}", wanted.regressor.get(name), self.regressor.get(name)) for name in names]
        pairs += [("models of", wanted.kind, self.kind), *self._lengths(wanted)]
        for name, ours, theirs in pairs:
            if ours != theirs:
                raise SettingsError(KEY, "", f"expected {name} {_text(ours)}, as this run has, received a state of {name} {_text(theirs)}")

    def _lengths(self, wanted: ForecastState) -> list[tuple[str, str, str]]:
        """Return of each length of bars that differs what it is a length of, what the run has, and what this has: in words."""
        if wanted.kind == "blocks":  # whose models learn all symbols
            pairs = [("", ours, theirs) for ours in wanted.bar_intervals_ns.values() for theirs in self.bar_intervals_ns.values()]
        else:
            both = [symbol for symbol in wanted.bar_intervals_ns if symbol in self.bar_intervals_ns]
            pairs = [(f"{symbol} in ", wanted.bar_intervals_ns[symbol], self.bar_intervals_ns[symbol]) for symbol in both]
        differ = [(of, ours, theirs) for of, ours, theirs in pairs if abs(ours - theirs) > _SAME_LENGTH * max(ours, theirs)]
        return [(f"{of}bars of", interval_text(ours), interval_text(theirs)) for of, ours, theirs in differ]


def settings_of_model(config: RegressorConfig) -> dict[str, Any]:
    """Return the settings that make a model, as JSON has them."""
    table = asdict(config)
    settings: dict[str, Any] = json.loads(json.dumps({name: table[name] for name in _OF_THE_MODEL}))
    return settings


def state_path(path: Path) -> Path:
    """Return the file that a setting names: of a run's folder, the one in it."""
    return path / STATE_FILE if path.is_dir() else path


def read_state(config: RegressorConfig) -> ForecastState | None:
    """Read the state that a configuration names, without unpickling anything; None: it names none.

    Raises:
        SettingsError: It can't be read, is no state, of another version, or damaged, or its SHA-256 is another one than configured.
    """
    if config.state is None:
        return None
    path = state_path(config.state)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(KEY, "", f"expected a file of what a forecaster has learnt, received {path}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if config.state_sha256 is not None and config.state_sha256.lower() != found:
        raise SettingsError("regressor.state_sha256", "", f"expected {config.state_sha256} of {path}, received {found}")
    try:
        return ForecastState.from_bytes(data)
    except ValueError as error:
        raise SettingsError(KEY, "", f"{path}: {error}") from error


def require_models(state: ForecastState) -> None:
    """Unpickle every model once.

    Raises:
        SettingsError: One can't be.
    """
    for of, model in state.models.items():
        try:
            model.learnt()
        except Exception as error:
            raise SettingsError(KEY, "", f"expected the model of {of} to be one that can be unpickled here: {line_of(error)}") from error


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else json.dumps(value) if not isinstance(value, str) else value
