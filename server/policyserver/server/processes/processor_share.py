"""Lets the learner give way on kernels that divide the processors among sessions first (sched(7), "The autogroup feature").

There a niceness counts only among the processes of one session. Clients in another session would wait for the learner as for an equal, and
longer than that: the share of a session whose threads crowd one core becomes tiny on the other one, where a thread that is answered then
waits for a tenth of a second.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_AUTOGROUP = Path("/proc/self/autogroup")
"""Names the group of this process's session, and takes its niceness; not there on other systems, nor on kernels without this feature."""
_TRIES, _PAUSE_S = 10, 0.11
"""The kernel takes one such niceness in a tenth of a second, of all users together but for privileged ones."""


def lower_priority(niceness: int) -> None:
    """Lower this process's priority, and that of its session if the session is its own, as it is of one that a service manager started.

    With `num_env_runners=0`, where serving is in the learner's process, it gives way, too.

    Args:
        niceness: From 0 to 19: added to the process's own; the session's is this, unless it is higher already.
    """
    os.nice(niceness)
    if os.getsid(0) != os.getpid():  # a terminal's session is not ours to slow down
        return
    for _ in range(_TRIES):
        try:
            if int(_AUTOGROUP.read_text(encoding="ascii").split()[-1]) < niceness:
                _AUTOGROUP.write_text(str(niceness), encoding="ascii")
            return
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except (OSError, ValueError, IndexError) as error:
            logger.debug("the session keeps its priority: %s", error)
            return
    logger.warning("the learner does not give way to other sessions: the kernel took no niceness from it in time")


def new_session() -> None:
    """Move this process into a session of its own, so that it keeps its share when the one that it was started in gives way.

    For a process that has no children yet: one in its process group would keep it there.
    """
    if not _AUTOGROUP.exists() or os.getsid(0) == os.getpid():
        return
    led = os.getpgrp() == os.getpid()  # as Ray's workers do; the leader of a process group may not leave
    try:
        if led:
            os.setpgid(0, os.getpgid(os.getppid()))
        os.setsid()
    except OSError as error:
        logger.debug("still in the session that this process was started in: %s", error)
        if led:
            os.setpgid(0, 0)


def warn_if_ray_lowered() -> None:
    """Warn if Ray runs this worker process behind others, as it does by default: its actions come late then.

    Compared with the process that Ray started it from: a service may run at a higher niceness as a whole, by intention.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    lowered = niceness - os.getpriority(os.PRIO_PROCESS, os.getppid())
    if lowered > 0:
        logger.warning(
            "serving at niceness %d, behind whatever else this machine does: on a busy one actions come late; set the environment variable "
            "RAY_worker_niceness=0 where Ray is started, before ray.init() or `ray start`",
            niceness,
        )
