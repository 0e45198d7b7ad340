"""Whether episodes may still be started."""

from __future__ import annotations

from policyserver.common.errors import PolicyServerError, ServerEndedError
from policyserver.server.episodes.core_statistics import CoreStatistics


class StartLimit:
    """Says why no episode more is started. Owned by the loop thread."""

    def __init__(self, statistics: CoreStatistics) -> None:
        self._statistics = statistics
        self.drain_error: PolicyServerError | None = None
        """What a server that drains answers."""
        self.retired: PolicyServerError | None = None
        """What one that is to be replaced answers, until it is told to stay."""
        self.held: PolicyServerError | None = None
        """What one without its daemon answers, until that is heard of."""
        self.most: int | None = None
        """Episodes that are started in all; None for any number."""

    def refusal(self, beside: int = 0) -> PolicyServerError | None:
        """Return why one more is refused, if it is, `beside` those that are about to be started."""
        refusal = self.drain_error or self.retired or self.held
        if refusal is not None or self.most is None or self._statistics.episodes_started + beside < self.most:
            return refusal
        return ServerEndedError(f"expected no more than {self.most} episodes, which have begun: this server ends with them")
