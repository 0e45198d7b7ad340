"""A process lowers its priority and that of a session of its own alone; one that must not give way leaves that session if it can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

AUTOGROUP = Path("/proc/self/autogroup")

pytestmark = [pytest.mark.skipif(not AUTOGROUP.exists(), reason="needs a kernel that groups processes by session"), pytest.mark.process]


def said_by(script: str, *, own_session: bool) -> list[str]:
    """Run a script in a new process and return the words that it prints."""
    imports = "import os\nfrom pathlib import Path\nfrom policyserver.server.processes.processor_share import lower_priority, new_session\n"
    command = [sys.executable, "-c", imports + script]
    return subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=own_session).stdout.split()


def test_a_process_in_a_session_of_its_own_lowers_the_session() -> None:
    group, _, session_niceness, own = said_by(
        "lower_priority(7)\nprint(Path('/proc/self/autogroup').read_text().strip(), os.nice(0))", own_session=True
    )
    assert (session_niceness, int(own)) == ("7", os.nice(0) + 7)
    assert group not in AUTOGROUP.read_text().split()


def test_a_session_that_is_somebody_elses_keeps_its_priority() -> None:
    before = AUTOGROUP.read_text().split()
    *found, own = said_by("lower_priority(7)\nprint(Path('/proc/self/autogroup').read_text().strip(), os.nice(0))", own_session=False)
    assert found == before == AUTOGROUP.read_text().split()
    assert int(own) == os.nice(0) + 7


@pytest.mark.parametrize("leads_a_group", [True, False])
def test_a_process_leaves_the_session_that_gives_way(leads_a_group: bool) -> None:
    script = f"""
lower_priority(9)
child = os.fork()
if child == 0:
    if {leads_a_group}:
        os.setpgid(0, 0)
    new_session()
    new_session()
    print(os.getsid(0) == os.getpid() == os.getpgrp(), Path('/proc/self/autogroup').read_text().split()[-1], flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(Path('/proc/self/autogroup').read_text().split()[-1])
"""
    assert said_by(script, own_session=True) == ["True", "0", "9"]


def test_a_process_that_cannot_leave_leads_its_group_again() -> None:
    script = """
ready, write = os.pipe()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    held = os.fork()  # is in the group, which therefore stays
    if held == 0:
        os.read(ready, 1)
        os._exit(0)
    new_session()
    print(os.getpgrp() == os.getpid(), os.getsid(0) == os.getppid(), flush=True)
    os.write(write, b"x")
    os.waitpid(held, 0)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert said_by(script, own_session=True) == ["True", "True"]
