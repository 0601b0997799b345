"""Whatever threads do to whatever tree of actions: all of it ends, and says the truth of itself.

Random programs (``program.py``) are played over the fake transport (``playing.py``), and what must
hold (``claims.py``) is looked at whenever the state of a process changes, and at the end. A program
that fails is made as small as possible and printed.

With ``CI=true`` the programs are chosen by the commit, elsewhere by chance. The same thousand for
ever would prove the same thousand; chosen by chance, a failure of CI would be gone at the next try.
So the next commit tries others, and the same commit the same ones. The seed is printed with a
failure, and played again by ``pytest --hypothesis-seed=... tests/test_properties.py``.
``EXECO_ROUNDS`` multiplies the programs; ``tests/benchmarks/rounds_properties.py`` plays more.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

import claims
from execo import Reason, default_connection_params, lifecycle, transports
from execo.delivery import Delivery
from execo.errors import OutputError
from execo.lifecycle import Run
from execo.outcome import State
from execo.output import Capture
from execo.process import SshProcess
from execo.testing import FakeTransport, Gate, Script, scripts
from invariants import check_idle
from noting import watched
from playing import LEGAL, Player
from program import Command, Cycle, Program, Tree, programs
from rounds import ROUNDS

PROGRAMS = 1000 * ROUNDS
"""How many are played."""

ROOT = Path(__file__).resolve().parent.parent

PATIENCE = 30.0


def _seed(config: pytest.Config) -> int:
    if (asked_for := config.getoption("--hypothesis-seed")) is not None:
        return int(asked_for)
    if os.environ.get("CI") == "true":
        # A checkout of somebody else's, as in a container, is one all the same.
        git = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "rev-parse", "HEAD"]
        head = subprocess.run(git, capture_output=True, text=True, check=False)
        if head.returncode == 0:
            return int(head.stdout, 16) % 2**32
    return secrets.randbits(32)


@pytest.fixture
def eye() -> Iterator[None]:
    with watched():
        yield


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_that_must_hold_holds_in_any_program(eye: None, request: pytest.FixtureRequest) -> None:
    number = _seed(request.config)

    @seed(number)
    @settings(
        max_examples=PROGRAMS,
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(programs())
    def play(program: Program) -> None:
        wrong = Player(program, claims).play()
        assert not wrong, "\n".join([*wrong, f"--hypothesis-seed={number}", repr(program)])

    play()
    check_idle()


def test_a_program_is_played_and_noted(eye: None) -> None:
    tree = Tree("sequential", parts=(Tree("remote"),))
    play = Player(Program(tree, (Cycle(),)), claims)
    assert play.play() == []
    assert play.root.ended
    assert [note.what for note in play.notes if note.whom is play.root._execution] == [
        *("begun", "ended", "released")
    ]


def _twice(function: Callable[..., object]) -> Callable[..., object]:
    return lambda *args: (function(*args), function(*args))


def _breaks(monkeypatch: pytest.MonkeyPatch, what: str) -> str:
    """Break the product; and the words by which the claims tell of it."""
    match what:
        case "output":
            append = Capture.append
            monkeypatch.setattr(Capture, "append", lambda self, data: append(self, data[1:]))
            return "stdout is b'ne"
        case "told twice":
            monkeypatch.setattr(Delivery, "event", _twice(Delivery.event))
            return "told of starts and ends (2, 2)"
        case "reason":
            monkeypatch.setattr(OutputError, "default_reason", Reason.SPAWN)
            return "the reason is spawn, should be write"
        case "end of output":
            monkeypatch.setattr(Run, "_close_stream", _twice(Run._close_stream))
            return "2 ends of output"
    raise ValueError(what)


@pytest.mark.parametrize("what", ["output", "told twice", "reason", "end of output"])
def test_the_claims_see_a_product_that_is_broken(
    eye: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    end = "output lost" if what == "reason" else "exit"
    command = Command(prints=((1, b"one\n"),), end=end, handler="count")
    program = Program(Tree("remote", (command,)), (Cycle(),))
    assert Player(program, claims).play() == []
    words = _breaks(monkeypatch, what)
    wrong = Player(program, claims).play()
    assert any(words in one for one in wrong), wrong


def test_the_states_are_those_of_the_documents() -> None:
    legal = {(a.name, b.name) for a, b in LEGAL}
    text = (ROOT / "doc/internals.rst").read_text()
    graph = text[text.index("digraph run {") : text.index("released [style")]
    drawn = set(re.findall(r"([A-Z]+) -> ([A-Z]+) \[", graph))
    # One that is tried again stays in its state; NEW is before the start, and not drawn.
    assert drawn - {("STARTING", "STARTING")} == legal - {("NEW", "STARTING")}
    assert {state.name for state in State} == {name for pair in legal for name in pair}
    words = set(re.findall(r"[A-Z]{5,}", (lifecycle.__doc__ or "").partition("*Ended*")[0]))
    assert words == {state.name for state in State} - {"NEW"}


# -- what they have found ---------------------------------------------------------------------


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    transports.register("fake", f"{FakeTransport.__module__}:FakeTransport")
    monkeypatch.setitem(default_connection_params, "transport", "fake")
    yield
    scripts.clear()


def test_a_sigkill_behind_another_signal_is_a_kill(fake: None) -> None:
    """A reload that is followed by a SIGKILL on request was a failure ``signal``."""
    scripts["serve"] = Script(Gate(), signals={signal.SIGHUP: None})
    process = SshProcess("serve", "h").start()
    process.kill(signal.SIGHUP, auto_force_kill_timeout=0.01).wait(PATIENCE)
    assert (process.exit_code, process.reason) == (-signal.SIGKILL, Reason.SIGNAL)
    assert (process.forced_kill, process.killed, process.ok) == (True, True, True)
