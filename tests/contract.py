"""What the contract test of the transports stands on: a recording sink, and the transports.

A transport joins with a :class:`Provider` at the end of ``PROVIDERS``. What it cannot do it names
in ``lacks``, and the tests which need that are not run on it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from execo import Host
from execo._core import child
from execo._core.loop import Loop
from execo._core.runtime import get_runtime
from execo.becoming.transport import BecomingTransport
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.errors import ProcessError
from execo.testing import Event, FakeTransport, Script
from execo.transports import local
from execo.transports.base import Become, Channel, Exec, Request, Sink, Target, Transport
from execo.transports.inprocess import InProcessTransport
from execo.transports.local import LocalTransport
from execo.transports.openssh import OpenSshTransport
from execo.transports.taktuk import TaktukTransport
from execo.transports.tree import TreeTransport

TIMEOUT = 30.0
"""Seconds after which a test gives up: a hang, not a speed."""

# -- a sink that writes down what it is told ----------------------------------------------------


class Recorder:
    """A sink. ``calls`` holds the names of its calls in order; the bytes are apart."""

    def __init__(self, loop: Loop) -> None:
        self.calls: list[str] = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.eofs: dict[int, OSError | None] = {}
        self.status: int | None = None
        self.error: ProcessError | None = None
        self.written = 0
        self.write_errors: list[OSError] = []
        self.strangers: list[str] = []
        """Calls from a thread that is not the I/O thread."""
        self.opened_in: int | None = None
        self.channel: Channel | None = None
        self.react: Callable[[str], object] = lambda call: None
        self._loop = loop
        self._changed = threading.Condition()

    def on_open(self, channel: Channel) -> None:
        self.opened_in = threading.get_ident()
        self.channel = channel
        self.calls.append("open")

    def on_start(self) -> None:
        self._note("start")

    def on_data(self, stream: int, data: bytes) -> None:
        assert data
        self.data[stream] += data
        self._note(f"data {stream}")

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self.eofs[stream] = error
        self._note(f"eof {stream}")

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self.status, self.error = status, error
        self._note("exit")

    def on_error(self, error: ProcessError) -> None:
        self.error = error
        self._note("error")

    def on_written(self, count: int) -> None:
        assert count > 0
        self.written += count
        self._note("written")

    def on_write_error(self, error: OSError) -> None:
        self.write_errors.append(error)
        self._note("write error")

    def _note(self, call: str) -> None:
        if not self._loop.in_thread():
            self.strangers.append(call)
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        self.react(call)

    # -- for the tests

    @property
    def out(self) -> bytes:
        return bytes(self.data[1])

    @property
    def err(self) -> bytes:
        return bytes(self.data[2])

    @property
    def exit_code(self) -> int | None:
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    @property
    def over(self) -> bool:
        """Nothing more can come."""
        return self.is_lost or ("exit" in self.calls and {1, 2} <= set(self.eofs))

    @property
    def is_lost(self) -> bool:
        return "error" in self.calls

    def wait(self, condition: Callable[[Recorder], object]) -> Recorder:
        with self._changed:
            met = self._changed.wait_for(lambda: condition(self), TIMEOUT)
        assert met, f"waited in vain; so far: {self!r}"
        return self

    def wait_over(self) -> Recorder:
        return self.wait(lambda sink: sink.over)

    def check(self) -> None:
        """What holds of every run, whatever it was."""
        calls = self.calls
        assert self.strangers == []
        assert calls[0] == "open"
        for once in ("open", "start", "exit", "eof 1", "eof 2", "error"):
            assert calls.count(once) <= 1, self
        if "start" in calls:
            assert calls[1] == "start", self
        else:
            assert calls in (["open"], ["open", "error"]), self
        if "error" in calls:
            assert "exit" not in calls, self
            assert set(calls[calls.index("error") + 1 :]) <= {"write error"}, self
        for stream in ("1", "2"):
            if f"eof {stream}" in calls:
                assert f"data {stream}" not in calls[calls.index(f"eof {stream}") :], self
        if "exit" in calls:
            assert "written" not in calls[calls.index("exit") :], self

    def __repr__(self) -> str:
        sizes = {stream: len(data) for stream, data in self.data.items()}
        return f"<calls {self.calls}, bytes {sizes}, status {self.status}, error {self.error!r}>"


# -- the transports -----------------------------------------------------------------------------

EVERYTHING = frozenset(
    {
        "cwd",  # runs in a folder of this machine
        "all signals",  # tells those, too, that were not sent through it
        "env",
        "exit first",  # tells the exit while something still holds the output open
        "files",  # commands see the files of this machine
        "group",  # signals reach all that a command has started
        "instant",  # a command runs, and has its pid, when open_all() returns
        "pid",  # its pid is one of this machine
        "popen",  # what it is run with is a Popen, which others may wait for
        "pty",
        "signals",  # a death by signal is told from an exit code
        "slots",  # can be made to run one command at a time
        "forward",  # carries TCP connections
        "heir",  # a command has the environment of this process
        "third stream",  # stderr is apart beside a terminal, too
        "unread",  # tells when a command reads no more of its input
        "spawn errors",  # a command that does not exist is an error, not an exit code
    }
)


@dataclass(frozen=True)
class Provider:
    """A transport under this contract.

    :param make: a new transport, which the test closes
    :param make_narrow: one that runs one command at a time
    :param lacks: what it cannot do, of EVERYTHING
    :param host: where it runs commands, from a test's fixtures; None = this machine
    :param transport: what its host's connection parameters say
    :param levels: so many gateways are before its host
    """

    name: str
    make: Callable[[pytest.MonkeyPatch], Transport]
    make_narrow: Callable[[pytest.MonkeyPatch], Transport]
    lacks: frozenset[str] = frozenset()
    host: Callable[[pytest.FixtureRequest], Host] | None = None
    transport: str = "auto"
    levels: int = 0

    def target(self, request: pytest.FixtureRequest) -> Target | None:
        """What its requests are to name."""
        if self.host is None:
            return None
        params = make_connection_params({"transport": self.transport})
        if self.levels:
            tree = request.getfixturevalue("gateways").params(self.levels)
            params = make_connection_params({**params, **tree})
        return connection_to(self.host(request), params)[1]


def make_local(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return LocalTransport(get_runtime())


def make_local_narrow(monkeypatch: pytest.MonkeyPatch) -> Transport:
    monkeypatch.setattr(local, "raise_descriptor_limit", lambda: 0)
    monkeypatch.setattr(local, "_room", lambda limit: local.DESCRIPTORS if limit else 0)
    return LocalTransport(get_runtime())


def without_pidfd(
    make: Callable[[pytest.MonkeyPatch], Transport],
) -> Callable[[pytest.MonkeyPatch], Transport]:
    def made(monkeypatch: pytest.MonkeyPatch) -> Transport:
        monkeypatch.setattr(child, "USE_PIDFD", False)
        return make(monkeypatch)

    return made


def make_fake(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return FakeTransport(get_runtime(), scripts=SCRIPTS)


def make_fake_narrow(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return FakeTransport(get_runtime(), scripts=SCRIPTS, slots=1)


def make_paramiko(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return InProcessTransport(get_runtime())


def as_user(request: pytest.FixtureRequest) -> Host:
    """On a real server."""
    host: Host = request.getfixturevalue("sshd").hosts(1)[0]
    return host


def as_root(request: pytest.FixtureRequest) -> Host:
    """On a real server, where this machine lets root in."""
    if os.geteuid():
        pytest.skip("only root can log in as root")
    host: Host = request.getfixturevalue("sshd").hosts(1, user="root")[0]
    return host


def embedded(request: pytest.FixtureRequest) -> Host:
    """On the embedded server."""
    host: Host = request.getfixturevalue("cluster").hosts[0]
    return host


OVER_SSH = frozenset("forward heir instant pid popen slots unread".split()) | {
    "spawn errors",
    "third stream",
}


def make_openssh(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return OpenSshTransport(get_runtime())


def make_openssh_alone(monkeypatch: pytest.MonkeyPatch) -> Transport:
    """Each command with a connection of its own."""
    monkeypatch.setattr(OpenSshTransport, "shares", lambda self, target: False)
    return OpenSshTransport(get_runtime())


PARAMIKO = OVER_SSH - {"forward"}

# ssh ends when the output is closed, and with 255 for every signal that we have not sent.
OPENSSH = OVER_SSH | {"exit first", "all signals"}


def make_taktuk(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return TaktukTransport(get_runtime())


class Becoming(BecomingTransport):
    """All as root, by way of another transport."""

    carrier = "paramiko"

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        root = Become("root")
        return super().open_all(
            [
                (
                    replace(request, become=root, through=self.carrier)
                    if isinstance(request, Exec)
                    else request,
                    sink,
                )
                for request, sink in pairs
            ]
        )

    def close(self) -> None:
        # What the runtime does at exit before it closes the transport that carries it.
        self._end_commands()
        super().close()


def make_becoming(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return Becoming(get_runtime())


def make_becoming_by_openssh(monkeypatch: pytest.MonkeyPatch) -> Transport:
    transport = Becoming(get_runtime())
    transport.carrier = "openssh"
    return transport


def as_somebody(request: pytest.FixtureRequest) -> Host:
    """On a real server, as a user who may become root."""
    people = request.getfixturevalue("people")
    host: Host = people.host(request.getfixturevalue("sshd"), "free")
    return host


def make_tree(monkeypatch: pytest.MonkeyPatch) -> Transport:
    return TreeTransport(get_runtime())


def behind_a_gateway(request: pytest.FixtureRequest) -> Host:
    """On a real server, whose other addresses are the gateways."""
    host: Host = request.getfixturevalue("gateways").hosts(1)[0]
    return host


# taktuk tells of the exit when the output is closed, and has no terminal (which those of cwd want).
TAKTUK = OVER_SSH | {"cwd", "exit first", "forward", "pty"}

# ssh tells of exit codes alone, and holds stderr open to the end; there is no terminal.
TREE = OVER_SSH | {"all signals", "cwd", "exit first", "forward", "pty"}

PROVIDERS = [
    Provider("local", make_local, make_local_narrow, frozenset({"forward"})),
    Provider(
        "local without pidfd",
        without_pidfd(make_local),
        without_pidfd(make_local_narrow),
        frozenset({"forward"}),
    ),
    Provider(
        "fake",
        make_fake,
        make_fake_narrow,
        lacks=frozenset("cwd env files forward group heir pid popen pty".split()),
    ),
    Provider("paramiko as root", make_paramiko, make_paramiko, PARAMIKO, as_root),
    Provider("paramiko", make_paramiko, make_paramiko, PARAMIKO | {"cwd", "files"}, as_user),
    Provider("paramiko on an embedded host", make_paramiko, make_paramiko, PARAMIKO, embedded),
    Provider("openssh as root", make_openssh, make_openssh, OPENSSH, as_root),
    Provider("openssh", make_openssh, make_openssh, OPENSSH | {"cwd", "files"}, as_user),
    Provider(
        "openssh, each alone",
        make_openssh_alone,
        make_openssh_alone,
        OPENSSH | {"cwd", "files"},
        as_user,
    ),
    Provider("openssh on an embedded host", make_openssh, make_openssh, OPENSSH, embedded),
    # sudo itself holds the output open.
    Provider(
        "become", make_becoming, make_becoming, PARAMIKO | {"exit first", "forward"}, as_somebody
    ),
    Provider(
        "become by openssh",
        make_becoming_by_openssh,
        make_becoming_by_openssh,
        OPENSSH,
        as_somebody,
        "openssh",
    ),
    Provider("taktuk", make_taktuk, make_taktuk, TAKTUK | {"files"}, as_user, "taktuk"),
    Provider("taktuk on an embedded host", make_taktuk, make_taktuk, TAKTUK, embedded, "taktuk"),
    Provider("tree", make_tree, make_tree, TREE | {"files"}, behind_a_gateway, "tree", 1),
    Provider("tree of two", make_tree, make_tree, TREE | {"files"}, behind_a_gateway, "tree", 2),
]

# What the fake does where the others run these commands.
SCRIPTS: dict[str, Script] = {}


def command(text: str, *events: Event, signals: Mapping[int, int | None] | None = None) -> str:
    """``text``, with its script for the fake."""
    SCRIPTS[text] = Script(*events, signals=signals)
    return text


def over(*needed: str) -> pytest.MarkDecorator:
    """Run the test over all transports that can do what is ``needed``."""
    assert set(needed) <= EVERYTHING
    able = [provider for provider in PROVIDERS if not provider.lacks & set(needed)]
    return pytest.mark.parametrize("provider", able, ids=lambda provider: provider.name)


# -- a place to run commands ---------------------------------------------------------------------


@dataclass
class Place:
    """A transport, and what to do with it from a test's thread."""

    transport: Transport
    loop: Loop
    target: Target | None = None
    sinks: list[Recorder] = field(default_factory=list)

    def open(self, request: Exec | str, **options: Any) -> Recorder:
        """One request that has been started: writing and signals are for what runs."""
        exec_request = request if isinstance(request, Exec) else Exec(request, **options)
        sink = self.open_all(exec_request)[0]
        return sink.wait(lambda sink: "start" in sink.calls or sink.is_lost)

    def open_all(self, *requests: Exec) -> list[Recorder]:
        sinks = [Recorder(self.loop) for _ in requests]
        self.sinks += sinks
        channels = self.start(list(zip(requests, sinks, strict=True)))
        assert [sink.channel for sink in sinks] == channels
        assert {sink.opened_in for sink in sinks} <= {threading.get_ident()}
        return sinks

    def start(self, pairs: list[tuple[Exec, Recorder]]) -> list[Channel]:
        return self.transport.open_all(
            [(replace(request, target=self.target), sink) for request, sink in pairs]
        )

    def run(self, request: Exec | str, **options: Any) -> Recorder:
        return self.open(request, **options).wait_over()

    def do(self, sink: Recorder, method: str, *args: Any) -> None:
        """Call a method of a channel where its methods belong."""
        self.loop.run_sync(getattr(sink.channel, method), *args)

    def end(self, sink: Recorder) -> None:
        """End a ``cat``."""
        self.do(sink, "close_stdin")
        sink.wait_over()
