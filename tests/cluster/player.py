"""Plays some episodes together, for clients on a test host: python player.py ADDRESS EPISODES OUTPUT [alone].

Observations are random, each action's reward is 1, an episode ends after some steps, and one that is lost is replaced. Ten times a second
OUTPUT gets one JSON object more, on a line of its own, of what happened so far.
"""

from __future__ import annotations

import collections
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from policyserver.client import BatchError, ClientConfig, PolicyClient, PolicyServerError

STEPS = 25
TLS = Path("/tmp/tls")


def main(address: str, count: int, output: str, spreads: bool) -> None:
    random = np.random.default_rng(count)
    config = ClientConfig(
        tls_ca_file=TLS / "certificate",
        token_file=TLS / "token",
        spread_episodes=spreads,
        keepalive_time_s=2.0,
        keepalive_timeout_s=2.0,
        connect_timeout_s=5.0,
    )
    errors: collections.Counter[str] = collections.Counter()
    runners: list[str] = []
    steps, longest_s, newest_s, said_s, version, handed_off = 0, 0.0, time.monotonic(), 0.0, 0, 0
    with PolicyClient(address, config=config) as client, Path(output).open("w", encoding="utf-8") as out:
        ids: list[str] = []
        shape = client.connect().observation_space.shape
        assert shape is not None
        ages = np.zeros(count, int)
        while True:
            try:
                if not ids:
                    ids = client.start_episodes(count)
                client.get_actions(ids, random.standard_normal((count, *shape)).astype(np.float32))
                failed: dict[int, PolicyServerError] = {}
            except BatchError as error:
                failed = dict(error.errors)
            except PolicyServerError as error:
                errors[type(error).__name__] += 1
                time.sleep(0.05)
                continue
            errors.update(type(error).__name__ for error in failed.values())
            answered = [row for row in range(count) if row not in failed]
            steps += len(answered)
            if answered:
                now_s = time.monotonic()
                longest_s, newest_s = max(longest_s, now_s - newest_s), now_s
                version = client.weights_seq_no
                with suppress(BatchError):
                    client.log_returns_batch([ids[row] for row in answered], np.ones(len(answered)))
            ages[answered] += 1
            over = [row for row in answered if ages[row] >= STEPS]
            with suppress(BatchError):
                client.end_episodes([ids[row] for row in over], random.standard_normal((len(over), *shape)).astype(np.float32))
            ended = [*failed, *over]
            try:
                for row, episode in zip(ended, client.start_episodes(len(ended)) if ended else [], strict=True):
                    ids[row], ages[row] = episode, 0
            except PolicyServerError as error:
                errors[type(error).__name__] += 1
                ids, ages = [], np.zeros(count, int)
            if time.monotonic() - said_s > 0.1:
                said_s = time.monotonic()
                with suppress(PolicyServerError):
                    stats = client.stats_by_endpoint()
                    runners, handed_off = sorted(stats), sum(each.steps_handed_off for each in stats.values())
                line = {"steps": steps, "longest_s": longest_s, "version": version, "errors": errors, "runners": runners}
                line["handed_off"] = handed_off
                out.write(json.dumps(line) + "\n")
                out.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:] != ["alone"])
