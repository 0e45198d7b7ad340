"""Checkpoints that are served beside the policy that learns."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policyserver.server.config.policies_config import PoliciesConfig, check_name
from policyserver.server.daemon.checkpoints import Checkpoint, CheckpointError, CheckpointFolder
from policyserver.server.daemon.roll_back import state_of
from policyserver.server.processes.link import DROP_POLICY, HOLD_POLICY, POLICIES, Link

logger = logging.getLogger(__name__)


class PolicyError(ValueError):
    """A policy that can't be loaded. Nothing has changed."""


class PolicyLimitError(PolicyError):
    """As many are loaded as may be."""


class PolicyMissingError(PolicyError):
    """No policy of that name is loaded."""


_HOLD_S = 10.0
"""Longest time that serving actors are given to hold a policy, or to drop one. It takes them some ten milliseconds."""


class ServingProcesses(Protocol):
    """What holds the policies where they decide."""

    def hold(self, name: str, state: Mapping[str, Any], everything: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Have all serving processes hold a policy; return why not, of those that can't.

        `everything` is what one that is restarted must hold.
        """

    def drop(self, name: str, everything: Mapping[str, Mapping[str, Any]]) -> None:
        """Have them begin no new episodes with it."""


@dataclass(frozen=True)
class LoadedPolicy:
    """One of them."""

    name: str
    checkpoint: Checkpoint
    is_ours: bool
    """Whether it is a checkpoint of this run, so that its number says which."""
    state: Mapping[str, Any]
    """What serving processes are given of it."""
    size_bytes: int
    """Of the state."""


class LoadedPolicies:
    """Loads and drops them. From any thread.

    A checkpoint of this run stays for as long as it is loaded, however many are newer.
    """

    def __init__(self, config: PoliciesConfig, checkpoints: CheckpointFolder, processes: ServingProcesses) -> None:
        """Begin without any."""
        self._config = config
        self._checkpoints = checkpoints
        self._processes = processes
        self._lock = threading.Lock()
        self._loaded: dict[str, LoadedPolicy] = {}

    def all(self) -> list[LoadedPolicy]:
        """Return those that are loaded, the first one first."""
        with self._lock:
            return list(self._loaded.values())

    def get(self, name: str) -> LoadedPolicy:
        """Return the one of a name.

        Raises:
            PolicyMissingError: No policy has that name.
        """
        with self._lock:
            if (loaded := self._loaded.get(name)) is None:
                there = ", ".join(self._loaded) or "none, for none is loaded"
                raise PolicyMissingError(f"policy: expected one of {there}; received {name!r}")
            return loaded

    def load(self, name: str, number: int) -> LoadedPolicy:
        """Serve a checkpoint of this run under a name. A second time it does nothing.

        Raises:
            PolicyError: The name can't be had, or a serving process can't hold it.
            PolicyLimitError: As many are loaded as may be.
            CheckpointError: There is no such checkpoint, or it can't be used.
        """
        self._checkpoints.use(number, used=True)
        kept = False
        try:
            with self._lock:
                before = self._loaded.get(name)
                loaded = self._load(name, self._checkpoints.whole(number), is_ours=True)
                kept = loaded is not before
                return loaded
        finally:
            if not kept:
                self._checkpoints.use(number, used=False)

    def load_foreign(self, name: str, checkpoint: Checkpoint) -> LoadedPolicy:
        """Serve a checkpoint of another folder; see `load`."""
        with self._lock:
            return self._load(name, checkpoint, is_ours=False)

    def drop(self, name: str) -> bool:
        """Begin no new episodes with a policy; the open ones go on. Returns whether it was there."""
        with self._lock:
            if (loaded := self._loaded.pop(name, None)) is None:
                return False
            self._processes.drop(name, self._states())
        if loaded.is_ours:
            self._checkpoints.use(loaded.checkpoint.number, used=False)
        logger.info("policy %s is dropped: its open episodes go on, no new ones begin", name)
        return True

    def _load(self, name: str, checkpoint: Checkpoint, *, is_ours: bool) -> LoadedPolicy:
        try:
            check_name(name)
        except ValueError as error:
            raise PolicyError(f"name: {error}") from error
        if (there := self._loaded.get(name)) is not None:
            if there.checkpoint.path == checkpoint.path:
                return there
            raise PolicyError(f"name: expected a new one, received {name!r}, which is {there.checkpoint.path}; drop it first")
        state = state_of(checkpoint)
        loaded = LoadedPolicy(name, checkpoint, is_ours, state, len(pickle.dumps(state, pickle.HIGHEST_PROTOCOL)))
        self._check_room(loaded)
        if failures := self._processes.hold(name, state, {**self._states(), name: state}):
            self._processes.drop(name, self._states())
            raise PolicyError(f"{checkpoint.path}: can't be served beside the policy that learns: {failures[0]}")
        self._loaded[name] = loaded
        logger.info("policy %s is %s, policy version %d", name, checkpoint.path, checkpoint.progress.weights_seq_no)
        return loaded

    def _check_room(self, wanted: LoadedPolicy) -> None:
        most, most_bytes = self._config.most, self._config.most_bytes
        if len(self._loaded) >= most:
            raise PolicyLimitError(f"expected at most {most} loaded policies (policies.most), received one more, {wanted.name!r}; drop one")
        total = sum(loaded.size_bytes for loaded in self._loaded.values()) + wanted.size_bytes
        if total > most_bytes:
            raise PolicyLimitError(
                f"expected loaded policies of at most {most_bytes} bytes together (policies.most_bytes), received {total} with "
                f"{wanted.name!r}; drop one"
            )

    def _states(self) -> dict[str, Mapping[str, Any]]:
        return {name: loaded.state for name, loaded in self._loaded.items()}


class LinkedActors:
    """Serving actors behind the driver link, those that are restarted, too."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def hold(self, name: str, state: Mapping[str, Any], everything: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Have them hold a policy; see `ServingProcesses`."""
        self._link.keep(POLICIES, everything)
        return [failure for failure in self._link.ask(_HOLD_S, kind=HOLD_POLICY, content=(name, state)) if failure]

    def drop(self, name: str, everything: Mapping[str, Mapping[str, Any]]) -> None:
        """Have them begin no new episodes with it."""
        self._link.keep(POLICIES, everything)
        self._link.ask(_HOLD_S, kind=DROP_POLICY, content=name)  # a caller whose answer came before theirs could still begin one


def load_configured(policies: LoadedPolicies, config: PoliciesConfig, checkpoint_at: Any) -> None:
    """Load what the configuration names; `checkpoint_at` finds a checkpoint by its folder.

    Raises:
        CheckpointError: One can't be loaded; the text names the setting.
    """
    for name, checkpoint in config.load.items():
        try:
            if isinstance(checkpoint, int):
                policies.load(name, checkpoint)
            else:
                policies.load_foreign(name, checkpoint_at(Path(checkpoint)))
        except (CheckpointError, PolicyError) as error:
            raise CheckpointError(f"policies.load.{name}: {error}") from error
