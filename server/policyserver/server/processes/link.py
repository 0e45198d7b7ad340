"""What the daemon says to its serving actors, and they to it, whichever way it takes: see `driver_link` and `remote_link`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

DRAIN, STATE, ASK = "drain", "state", "ask"
INTERRUPT = "interrupt"
"""Order: answer a waiting `sample()` with nothing, for the daemon's main thread has something else to do."""
FULL = "full"
"""Order: answer a `sample()` of a call, by its number, with what there is, for all actors together have what the learner wants."""
STEPS = "steps"
"""Question: how many steps were made for a call, by its number; answered with RLlib's index, those handed off, and those ready to be."""
LOG_LEVEL = "log level"
"""Order: log from a severity on, by its name."""
PAUSE = "pause"
"""Order: let steps by-pass the learner, or no longer."""
ROLL_BACK = "roll back"
"""Question: serve another state at once, and say what is served then."""
HOLD_POLICY = "hold policy"
"""Question: hold a policy beside the one that learns, by a pair of its name and its state, and say why not, if not."""
RETIRE = "retire"
"""Question: how far each actor is in leaving, with an order to one of them; see `retirement_state`."""
DROP_POLICY = "drop policy"
"""Question: begin no new episodes with a policy, by its name, and say whether it was held."""
POLICIES = "policies"
"""Order: hold all these policies, states by name; for actors that connect later."""
SECRETS = "secrets"
"""Order: listen with this certificate, key and token, a tuple of two bytes and a text; with a link between machines."""
ENDPOINTS = "endpoints"
"""Order: tell clients how many episodes are open at each address, by a mapping; on a cluster that is where the actors are, too."""
ACTORS = "actors"
"""Order: so many serving actors there are, and among them the learner's batch is divided."""


class Link(Protocol):
    """The daemon's end. Everything may be called from any thread, and `drain` and `order` from a signal handler."""

    def drain(self, *, is_final: bool = False) -> None:
        """Tell all actors, those that connect later too, to finish what they have and start nothing new.

        If it `is_final`, the server does not come back by itself, which the actors tell their callers.
        """

    def order(self, kind: str, content: Any = None, *, stays: bool = False) -> None:
        """Tell all actors something, and if it `stays`, those that connect later, too."""

    def offer(self, state: dict[str, Any]) -> None:
        """Keep an env runner's state, weights included, for actors that connect from now on."""

    def keep(self, kind: str, content: Any) -> None:
        """Keep an order for actors that connect from now on; those that are there are not told."""

    def ask(
        self, timeout_s: float, on_late: Callable[[Any], None] = lambda answer: None, *, kind: str = ASK, content: Any = None
    ) -> list[Any]:
        """Ask all actors something, by default how serving goes, and return what those say that answer in time.

        Args:
            timeout_s: Longest wait for the answers.
            on_late: Called with each answer to an earlier question of that kind that came too late for it.
            kind: What is asked.
            content: What comes with the question.
        """

    def release(self, index: int) -> None:
        """Note that an actor, by RLlib's index, is about to end for good: it is missed no more, and its addresses are no longer told."""

    def close(self) -> None:
        """Cut the link: to the actors this is the daemon's end. A second call does nothing."""


@dataclass(frozen=True)
class Followed:
    """What an actor does with what it is told. All functions are called from the link's own thread."""

    on_drain: Callable[[bool], None]
    """The daemon starts to drain; with whether that is final."""
    on_driver_gone: Callable[[], None]
    """The daemon's process has ended, however it did."""
    on_state: Callable[[dict[str, Any]], None]
    """The newest state, if the daemon has offered one."""
    on_question: Callable[[Any], Any]
    """The daemon asks how serving goes; with what comes with the question."""
    orders: Mapping[str, Callable[[Any], None]] = field(default_factory=dict)
    """What `Link.order` tells, by kind; an order of another kind is skipped."""
    questions: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """What else `Link.ask` asks, by kind."""

    def obey(self, kind: str, content: Any) -> None:
        """Follow an order."""
        if kind == DRAIN:
            self.on_drain(content)
        elif kind == STATE:
            self.on_state(content)
        elif kind in self.orders:
            self.orders[kind](content)

    def answers(self, kind: str) -> bool:
        """Tell whether a kind is that of a question."""
        return kind == ASK or kind in self.questions

    def answer(self, kind: str, content: Any) -> Any:
        """Answer a question."""
        return self.on_question(content) if kind == ASK else self.questions[kind](content)
