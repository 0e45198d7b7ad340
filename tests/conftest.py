"""Fixtures that every area shares. A test that needs a service of the machine calls `missing_service` where it does not find it."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.live_server import Serving, serving
from tests.services import InfluxServer
from tests.shared_ray import SharedRay
from tests.streams import fail_start as fail_start  # fixtures
from tests.streams import streams as streams

# What tests talk to is on this machine. Python's urllib and a browser ask a proxy even for that, unless they are told.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1,localhost,::1")))

# Tests press Ctrl-C on programs that they start, which inherit whether it is ignored. A shell without job control has it ignored by what
# it starts in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("few", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("many", parent=settings.get_profile("few"), max_examples=200)
if settings.get_current_profile_name() != "many":  # which `make test-slow` names
    settings.load_profile("few")

TESTS = Path(__file__).parent
CARTPOLE = """
[spaces.observation]
type = "Box"
low = -inf
high = inf
shape = [4]
dtype = "float32"
[spaces.action]
type = "Discrete"
n = 2
[algorithm.training]
train_batch_size_per_learner = 1000
minibatch_size = 250
[algorithm.rl_module.model_config]
fcnet_hiddens = [32, 32]
use_lstm = false
"""
MARKET = """
seed = 7
[episodes]
episode_idle_timeout_s = 1.0
[algorithm.training]
train_batch_size_per_learner = 2000
minibatch_size = 500
num_epochs = 2
"""


def _refuse_to_open_beside_sqlite(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: fail where Python opens a database's file that SQLite has open in this process, whose locks the close would drop."""
    if event != "open" or not isinstance(arguments[0], str | os.PathLike):
        return
    path = os.fspath(arguments[0])
    if not isinstance(path, str) or not path.endswith((".sqlite", "-wal", "-shm")):
        return
    with contextlib.suppress(FileNotFoundError):
        wanted = os.stat(path)
        for descriptor in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                assert not os.path.samestat(wanted, os.stat(int(descriptor))), f"{path} was opened beside SQLite"


sys.addaudithook(_refuse_to_open_beside_sqlite)


def _stack_without_source(context: int = 0) -> list[inspect.FrameInfo]:
    """Return the stack without lines of source: each of RLlib's connectors takes one frame of it, and to find the source takes 0.1 s."""
    assert context == 0, "nobody has asked for the source so far"
    frames: list[inspect.FrameInfo] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        frame = frame.f_back
    return frames


inspect.stack = _stack_without_source


_processes: list[str] = []
"""What the running test has started."""


def _note_a_process(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        _processes.append(f"{event} {arguments[:1]}")


sys.addaudithook(_note_a_process)


_SHARED = {"private_ray": "Ray", "cartpole_serv": "the server for CartPole", "market_serving": "the server for pipelines"}
"""What takes long to start, by a word of the files that use it: one process of pytest-xdist runs all of these, one after another."""
_ORDER = [*_SHARED.values(), ""]


@functools.cache
def _text_of(file: str) -> str:
    return (TESTS.parent / file).read_text(encoding="utf-8")


@functools.cache
def _shared_by(file: str) -> str:
    """Return what a test file shares with others; nothing for most."""
    return next((shared for word, shared in _SHARED.items() if word in _text_of(file)), "")


def _has_fixtures_of_its_own(file: str) -> bool:
    """Whether the tests of a file share a fixture, which is set up once if they run one after another."""
    return 'scope="module"' in _text_of(file)


_SLOW = re.compile(r"(?<!not )\bslow\b")
"""In an expression of marks that chooses slow tests."""


class _Scheduling(LoadFileScheduling):  # type: ignore[misc]  # whose sources are not followed
    """Give each process whole files, and all files that share something to one. Slow tests that share nothing are given one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        if shared := _shared_by(file):
            return shared
        one_by_one = _SLOW.search(self.config.getoption("markexpr")) and not _has_fixtures_of_its_own(file)
        return nodeid if one_by_one else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Divide the tests among processes."""
    return _Scheduling(config, log)


_OF_PROCESSES = {"integration", "learning", "benchmarks"}
"""Folders whose tests all talk to processes."""
_FIXTURES_OF_PROCESSES = {"running_influx", "cartpole_serving", "market_serving", "private_ray", "site", "started"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes by its folder, or by a fixture that several tests share; put first what shares something or is long."""

    def order(item: pytest.Item) -> tuple[int, bool, float]:
        of_file = _shared_by(item.nodeid.split("::")[0])
        return _ORDER.index(of_file), of_file == "Ray" and "private_ray" not in _fixtures_of(item), -_allowed_s(item)

    items.sort(key=order)
    for item in items:
        fixtures = _fixtures_of(item)
        if not _OF_PROCESSES.isdisjoint(item.path.parts) or not _FIXTURES_OF_PROCESSES.isdisjoint(fixtures):
            item.add_marker("process")


def _fixtures_of(item: pytest.Item | None) -> Sequence[str]:
    return getattr(item, "fixturenames", ())


def _allowed_s(item: pytest.Item) -> float:
    """Return how long a slow test may take, which tells how long it takes: the longest ones are not to begin last."""
    timeout = item.get_closest_marker("timeout")
    moves = timeout and item.get_closest_marker("slow") and not _has_fixtures_of_its_own(item.nodeid.split("::")[0])
    return float(timeout.args[0]) if timeout and moves else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leave what is imported, Ray and torch above all, out of collections of garbage: each would take half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


_QUICK_CPU_S = 5.0
"""Processor time that the call of a test without a mark may take: several times what any takes on a machine with nothing else to do."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin to watch a test, its fixtures included."""
    _processes.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Hold tests to their marks in `make test-fast`, which runs what is quick; elsewhere other settings may make a test long."""
    began_s = time.process_time()
    yield
    used_s = time.process_time() - began_s
    quick = used_s < _QUICK_CPU_S or "not long" not in item.config.getoption("markexpr")
    assert quick or _is_marked(item, "long"), f"mark it `long`, for it computed for {used_s:.1f} s"


def _is_marked(item: pytest.Item, *names: str) -> bool:
    return any(item.get_closest_marker(name) for name in (*names, "process", "slow", "figures"))


_ray = SharedRay()


@pytest.fixture(scope="module")
def private_ray() -> None:
    """A Ray in this process, shared with the files around that use it."""
    _ray.start()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop Ray after the last test that shares it. Hold tests to their marks: `make test-fast` runs those that start no process."""
    if "private_ray" not in _fixtures_of(nextitem):
        _ray.stop()
    assert _is_marked(item) or not _processes, f"mark it `process`, for it started {_processes[0]}"


@pytest.fixture(scope="session")
def missing_service() -> Callable[[str], NoReturn]:
    """Skip for want of a service, naming it; fail instead where REQUIRE_SERVICES is set, as CI does."""

    def missing(reason: str) -> NoReturn:
        if os.environ.get("REQUIRE_SERVICES"):
            pytest.fail(f"REQUIRE_SERVICES is set: {reason}", pytrace=False)
        pytest.skip(reason)

    return missing


@pytest.fixture
def running_influx(tmp_path: Path, missing_service: Callable[[str], NoReturn]) -> Iterator[InfluxServer]:
    """An InfluxDB that takes points."""
    server = InfluxServer(tmp_path / "influx", missing_service)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def cartpole_serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A `policy-server serve` process for CartPole's spaces with a small MLP, learning, shared by all tests of the session.

    Its counters belong to everyone: a test that needs to know them exactly starts a server of its own.
    """
    with serving(CARTPOLE, tmp_path_factory.mktemp("cartpole_server")) as server:
        yield server


@pytest.fixture(scope="session")
def market_serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of the pipelines' spaces, which learns and notices dead clients after a second, shared as that for CartPole is."""
    with serving(MARKET, tmp_path_factory.mktemp("market_server")) as server:
        yield server


@pytest.fixture(scope="session")
def cartpole_server(cartpole_serving: Serving) -> str:
    """The address of that server."""
    return cartpole_serving.address


@pytest.fixture(autouse=True)
def no_leaked_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold the areas whose threads are all our own to joining every one of them before the test is over."""
    if request.path.relative_to(TESTS).parts[0] not in ("client", "pipelines", "monitoring"):
        yield
        return
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 60.0  # the time is spent only where a thread is left
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        gc.collect()  # the poller of grpc.aio ends with its last object, which may be in a cycle
        left.pop().join(0.1)
    assert not left, f"the test left threads running: {sorted(thread.name for thread in left)}"
