"""The window on the ssh that are being set up."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from execo._core.runtime import get_runtime
from execo.transports.base import Target
from execo.transports.openssh_window import EACH, TOTAL, Entrant, Window

TIMEOUT = 30.0


class Ssh:
    def __init__(self, address: str, port: int | None = None) -> None:
        self.target = Target(address, port=port)
        self.connected = False

    def set_up(self) -> bool:
        return self.connected


class Desk:
    """A window, and what it has started."""

    def __init__(self) -> None:
        self.started: list[Entrant] = []
        self.changed = threading.Condition()
        self.window = Window(get_runtime().loop, self._start)

    def _start(self, admitted: Sequence[Entrant]) -> None:
        with self.changed:
            self.started += admitted
            self.changed.notify_all()

    def enter(self, *all_ssh: Ssh) -> None:
        self._start(self.window.enter(all_ssh))

    def leave(self, ssh: Entrant) -> None:
        get_runtime().loop.run_sync(self.window.leave, ssh)

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.started) >= count, TIMEOUT)

    def empty(self) -> None:
        while self.window.queued() or self.window._held:
            for ssh in list(self.window._held):
                self.leave(ssh)


def test_two_hundred_hosts_are_never_more_than_the_total() -> None:
    desk = Desk()
    hosts = [Ssh(f"10.0.0.{n}") for n in range(200)]
    desk.enter(*hosts)
    assert desk.started == hosts[:TOTAL]
    for done in range(1, 201 - TOTAL):
        desk.leave(hosts[done - 1])
        assert desk.started == hosts[: TOTAL + done]
    desk.empty()
    assert desk.started == hosts


def test_an_address_has_its_own_limit_and_holds_up_no_other() -> None:
    desk = Desk()
    slow, other = [Ssh("10.0.0.1") for _ in range(100)], [Ssh("10.0.0.2") for _ in range(3)]
    moved = Ssh("10.0.0.1", 2222)
    desk.enter(*slow, *other, moved)
    first = [slow[0], other[0], moved, slow[1], other[1], slow[2], other[2]]
    assert desk.started == [*first, *slow[3:EACH]]
    desk.empty()
    assert Counter(map(id, desk.started)) == Counter(map(id, [*slow, *other, moved]))


def test_loopback_is_one_machine() -> None:
    desk = Desk()
    desk.enter(*(Ssh(f"127.0.1.{n}", 22) for n in range(60)), Ssh("::1", 22))
    assert len(desk.started) == EACH
    desk.empty()


def test_who_leaves_twice_frees_one_slot() -> None:
    desk = Desk()
    hosts = [Ssh("10.0.0.1") for _ in range(20)]
    desk.enter(*hosts)
    desk.leave(hosts[0])
    desk.leave(hosts[0])
    desk.leave(Ssh("10.0.0.9"))
    assert desk.started == hosts[: EACH + 1]
    desk.empty()


def test_who_is_given_up_in_the_queue_is_not_started() -> None:
    desk = Desk()
    hosts = [Ssh("10.0.0.1") for _ in range(20)]
    desk.enter(*hosts)
    assert [desk.window.give_up(ssh) for ssh in hosts] == [False] * EACH + [True] * 12
    assert not desk.window.give_up(hosts[-1])
    late = Ssh("10.0.0.1")
    desk.enter(late)
    desk.empty()
    assert desk.started == [*hosts[:EACH], late]
    assert desk.window._addresses == {}


def test_a_connection_that_is_set_up_frees_its_slot_by_itself() -> None:
    desk = Desk()
    hosts = [Ssh("10.0.0.1") for _ in range(EACH + 1)]
    desk.enter(*hosts)
    hosts[3].connected = True
    desk.wait_for(EACH + 1)
    assert desk.started == hosts
    desk.empty()
