"""One connection from a gateway to a host: an ssh there whose own command is the guard, and whose
other commands are the user's."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from execo._core.timer import Timer
from execo.errors import ProcessError, Reason, SpawnError

from .base import Target
from .openssh_words import Abilities, connection_options
from .remote_shell import (
    ORDER_BYE,
    ORDER_END,
    ORDER_RUN,
    Hello,
    Mark,
    command_text,
    guard_text,
    kill_order,
    parse_hello,
)
from .ssh_messages import SSH_FAILED, diagnose, failure, place, read_log
from .tree_channel import State, TreeChannel

if TYPE_CHECKING:
    from .tree_link import TreeLink

__all__ = ["TreeLeaf", "ssh_words"]

_ROOM = 1 << 18
_LONGEST_SAID = 1 << 14
_PATIENCE = 60.0
_ATTEMPTS = 4


def ssh_words(target: Target, text: str) -> tuple[str, ...]:
    """The ssh command, for a gateway, that runs ``text`` on ``target``.

    :raises ValueError: for a NUL, which no word can have
    """
    words = (
        *target.options.ssh,
        "-T",
        *connection_options(target, Abilities()),
        "--",
        target.address,
        text,
    )
    if any("\0" in word for word in words):
        raise ValueError("a NUL character cannot be part of it")
    return words


class TreeLeaf:
    """A connection to one host, which several commands share. All on the I/O thread.

    - ``channels``: the commands that run over it, or whose output or survivors may still be of
      interest
    - ``most``: how many commands the host takes over one connection, None as long as it is not
      known
    """

    def __init__(self, link: TreeLink, target: Target) -> None:
        self.target = target
        self.channels: set[TreeChannel] = set()
        self.waiting: list[TreeChannel] = []
        self.most: int | None = None
        self.hello: Hello | None = None
        self.over = False
        self._link = link
        self._nonce = secrets.token_hex(8)
        self._numbers = 0
        self._heard = b""
        self._said = b""
        self._retired = False
        self._patience = Timer(link.loop)
        self._idle = Timer(link.loop)
        text = ssh_words(target, guard_text(self._nonce, first=False))
        payload = "\0".join(text).encode("utf-8", "surrogateescape")
        self.id = link.order(self, "run", payload, shared=True, room=_ROOM)

    @property
    def usable(self) -> bool:
        """It takes one more command, now or when it is connected."""
        if self.over or self._retired:
            return False
        return self.most is None or len(self.running) + len(self.waiting) < self.most

    @property
    def running(self) -> list[TreeChannel]:
        """The commands that take one of the places that the host gives."""
        return [one for one in self.channels if one.state in (State.SENT, State.RUNNING)]

    # -- commands -------------------------------------------------------------------------------

    def add(self, channel: TreeChannel) -> None:
        """Have a command run."""
        channel.leaf = self
        self._idle.cancel()
        if self.hello is None:
            self.waiting.append(channel)
        else:
            self._open(channel)

    def _open(self, channel: TreeChannel) -> None:
        assert self.hello is not None
        self._numbers += 1
        channel.number = self._numbers
        request = channel.request
        text = command_text(
            request.command,
            cwd=request.cwd,
            env=request.env,
            mark=Mark(self._nonce, self._numbers, request.detach),
            posix=self.hello.posix,
            relay=request.relay,
        )
        self.channels.add(channel)
        self._tell(ORDER_RUN.format(channel.number))
        window = self._link.window()
        payload = text.encode("utf-8", "surrogateescape")
        number = self._link.order(channel, "open", payload, on=self.id, room=window)
        channel.sent(number, window)

    def refused(self, channel: TreeChannel, why: str) -> None:
        """The host, or the ssh there, has not taken a command: it has not been started."""
        self._tell(ORDER_END.format(channel.number))
        self.channels.discard(channel)
        self._link.drop(channel)
        channel.back()
        channel.attempts += 1
        if self.running:
            self.most = len(self.running)
        else:
            self._retired = True
        if channel.attempts < _ATTEMPTS:
            self._link.place(channel)
        else:
            channel.refuse(
                ProcessError(
                    f"{place(self.target)} runs no command over its connection from "
                    f"{self._link.name}: {why}; see MaxSessions in its sshd_config",
                    reason=Reason.CONNECT,
                    host=self.target.address,
                )
            )
        self.look_idle()

    def exited(self, channel: TreeChannel) -> None:
        """A command has ended."""
        self._tell(ORDER_END.format(channel.number))

    def remove(self, channel: TreeChannel) -> None:
        """A command is of no interest any more."""
        self.channels.discard(channel)
        if channel in self.waiting:
            self.waiting.remove(channel)
        self.look_idle()

    def kill(self, number: int, signal_number: int, *, group: bool, runs: bool) -> bool:
        """Have a command signalled; False if there is nobody to do it."""
        if self.over or self.hello is None or not self.hello.linux or self._retired:
            return False
        self._tell(kill_order(number, signal_number, group=group, runs=runs))
        return True

    def look(self, number: int, answer: Callable[[str], object]) -> None:
        """Have the host say what is left of a command: ``lead``, the command itself; ``left``, only
        something that it has started; or nothing. Not called if the host does not answer."""
        if not self.over and self.hello is not None:
            _Look(self._link, self.id, _LOOK.format(nonce=self._nonce, number=number), answer)

    def _tell(self, order: str) -> None:
        if not self.over:
            self._link.feed([self.id], order.encode())

    # -- its end --------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nobody needs it: what has survived a killed command can be killed at once."""
        return not self.waiting and all(one.told for one in self.channels)

    def look_idle(self) -> None:
        """End it after a while, unless it is needed again."""
        if self.channels or self.waiting or self.over:
            return
        if self._retired:
            self.dismiss()
        elif (limit := self.target.options.idle_limit) is not None:
            self._idle.set(limit, self.dismiss)

    def dismiss(self) -> None:
        """End it: the guard touches nothing."""
        if self.over:
            return
        self._retired = True
        for channel in list(self.channels):
            channel.kill_survivors()
        self._tell(ORDER_BYE)
        self._link.tell("eof", id=self.id)
        if self.hello is None:
            self._link.tell("drop", id=self.id)
        self._idle.cancel()

    # -- told by the gateway --------------------------------------------------------------------

    def on_up(self) -> None:
        limit = self.target.options.connect_timeout
        self._patience.set(_PATIENCE if limit is None else 3 * limit + 5, self._give_up)

    def on_no(self, why: str, spawn: bool) -> None:
        words = self.target.options.ssh[0]
        text = f"{self._link.name} cannot run {words!r} to reach {place(self.target)}: {why}"
        if spawn and f"Errno {errno.EMFILE}]" in why:
            text += "; raise its limit of open files there (ulimit -Hn), or add gateways"
        elif spawn:
            text += "; install it there (package openssh-client), or name another with ssh"
        self._end(SpawnError(text, host=self.target.address))

    def on_out(self, stream: int, data: bytes) -> None:
        self._link.tell("room", id=self.id, by=len(data))
        if stream == 2:
            self._said = (self._said + data)[-_LONGEST_SAID:]
            return
        if self.hello is not None or self.over:
            return
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            hello = parse_hello(line.decode("utf-8", "replace"))
            if hello is not None:
                self.hello = hello
                self._heard = b""
                self._patience.cancel()
                waiting, self.waiting = self.waiting, []
                for channel in waiting:
                    self._open(channel)
                self.look_idle()
                return
        if len(self._heard) > _LONGEST_SAID:
            self._heard = self._heard[-100:]

    def on_end(self, stream: int) -> None:
        pass  # the guard closes its output when it has its first signal to send

    def on_took(self, count: int) -> None:
        pass

    def on_stuck(self) -> None:
        self._retired = True  # without its guard, it takes no further command

    def on_exit(self, code: int | None) -> None:
        self._end(self._why(code))

    def lose(self, why: str) -> None:
        """The gateway is lost."""
        self._over()
        for channel in list(self.channels):
            channel.lose(why)

    def _give_up(self) -> None:
        self._link.tell("drop", id=self.id)
        host = self.target.address
        text = f"{place(self.target)} does not answer (tried from {self._link.name})"
        self._end(ProcessError(f"{text}; is the host up?", reason=Reason.CONNECT, host=host))

    def _why(self, code: int | None) -> ProcessError:
        """Why the ssh has ended."""
        text = self._said.decode("utf-8", "replace")
        host, where = self.target.address, f"(tried from {self._link.name})"
        if self.hello is not None:
            trouble = diagnose(read_log(text).messages, host)
            cause = trouble.cause if trouble else "the ssh on the gateway has ended"
            return ProcessError(
                f"the connection from {self._link.name} to {place(self.target)} was lost: {cause}; "
                "is the host still up?",
                reason=Reason.CONNECT,
                host=host,
            )
        if code not in (None, SSH_FAILED):
            said = "; ".join(text.split("\n")[-3:]).strip("; ")
            return SpawnError(
                f"{place(self.target)} runs no shell for the guard {where}: "
                f"{said or 'it has exited'}; set guard to False for it",
                host=host,
            )
        error = failure(self.target, SSH_FAILED, read_log(text), (), follows=True)
        assert error is not None
        return ProcessError(f"{error} {where}", reason=error.reason, host=host)

    def _over(self) -> None:
        self.over = True
        self._patience.cancel()
        self._idle.cancel()
        self._link.leaf_ended(self)

    def _end(self, error: ProcessError) -> None:
        if self.over:
            return
        self._over()
        waiting, self.waiting = self.waiting, []
        for channel in list(self.channels):
            channel.lose(str(error))
        for channel in waiting:
            if channel.told:
                continue  # given up as it heard of another one
            channel.leaf = None
            channel.attempts += 1
            if self._retired and channel.attempts < _ATTEMPTS:
                self._link.place(channel)  # it has come as this one went
            else:
                channel.refuse(_own(error))


# Zombies have no environment: the leader is one that bears its own process id in its mark.
_LOOK = (
    'exec /bin/sh -c \'f=; for l in $(grep -asHoE "EXECO_MARK={nonce}[.]{number}[.][0-9]+" '
    "/proc/[0-9]*/environ 2>/dev/null); do p=${{l#/proc/}}; p=${{p%%/*}}; "
    "case ${{l##*.}} in $p) echo lead; exit;; esac; f=1; done; [ $f ] && echo left; echo end'"
)


class _Look:
    """A small command of ours, which tells something in a word."""

    def __init__(
        self, link: TreeLink, connection: int, text: str, answer: Callable[[str], object]
    ) -> None:
        self._answer = answer
        self._said = b""
        self._link = link
        self._streams = {1, 2}
        self._exited = False
        self.id = link.order(self, "open", text.encode(), on=connection, room=4096)

    def on_up(self) -> None: ...
    def on_took(self, count: int) -> None: ...
    def on_stuck(self) -> None: ...

    def on_no(self, why: str, spawn: bool) -> None:
        self._link.drop(self)

    def on_exit(self, code: int | None) -> None:
        self._exited = True
        self._look_over()

    def on_out(self, stream: int, data: bytes) -> None:
        if stream == 1:
            self._said += data[:100]

    def on_end(self, stream: int) -> None:
        self._streams.discard(stream)
        self._look_over()
        if stream == 1 and (words := self._said.split()):
            self._answer(words[0].decode("ascii", "replace"))

    def _look_over(self) -> None:
        if self._exited and not self._streams:
            self._link.drop(self)


def _own(error: ProcessError) -> ProcessError:
    return type(error)(str(error), reason=error.reason, host=error.host)
