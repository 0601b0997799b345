"""One connection: who may log in, and what it may ask for."""

from __future__ import annotations

import fnmatch
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import paramiko
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_REQUEST,
    OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_FAILED_UNKNOWN_CHANNEL_TYPE,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_FAILURE,
    cMSG_CHANNEL_SUCCESS,
)

from .forward import carry, is_here
from .session import Session
from .settings import Settings
from .sftp import Files, Sftp
from .wire import Wire

__all__ = ["Connection"]

_IDLE = 3600.0
"""Seconds between two looks at an idle socket. paramiko's own tenth of a second costs more than
the work itself from some hundred connections on."""

_LOGIN_TIMEOUT = 30.0
_CONNECT_TIMEOUT = 10.0


class Connection(paramiko.Transport):
    """paramiko's server side, which follows OpenSSH's sshd where that says more.

    Some of paramiko's private places are used: the table of channel messages, to honour "signal"
    requests, to reply before a command's output and to close a channel after its command; and the
    queue of accepted channels, which would only grow.

    :param wire: its socket
    :param settings: those of the cluster
    :param home: the host's home folder
    :param keys: the host's private key, and the public key that may log in
    :param running: the host's set of running commands
    :param on_end: called with it, on its thread, when it is over
    """

    def __init__(
        self,
        wire: Wire,
        settings: Settings,
        home: str,
        keys: tuple[paramiko.PKey, paramiko.PKey],
        running: set[subprocess.Popen[bytes]],
        on_end: Callable[[Connection], object],
    ) -> None:
        super().__init__(wire)  # type: ignore[arg-type]
        self.wire = wire
        self.banner_timeout = self.handshake_timeout = _LOGIN_TIMEOUT
        self.add_server_key(keys[0])
        self.set_subsystem_handler("sftp", Sftp, Files, home)
        self._may = _Permissions(wire, settings, home, keys[1], running)
        self._on_end = on_end
        self._open: dict[int, paramiko.Channel] = {}
        base: Any = paramiko.Transport
        self._channel_handler_table: dict[int, Any] = {
            **base._channel_handler_table,
            MSG_CHANNEL_REQUEST: self._channel_request,
            MSG_CHANNEL_CLOSE: self._channel_close,
        }

    def serve(self) -> None:
        """Start its thread and return."""
        # Without an event paramiko waits here for the client.
        self.start_server(event=threading.Event(), server=self._may)

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._may.hang_up()
            self._on_end(self)

    def _channel_request(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        place = message.packet.tell()
        kind = message.get_text()
        session = self._may.sessions.get(channel.get_id())
        if kind == "signal" and session is not None:
            wants_reply = message.get_boolean()
            done = session.send_signal(message.get_text())
            if wants_reply:
                reply = paramiko.Message()
                reply.add_byte(cMSG_CHANNEL_SUCCESS if done else cMSG_CHANNEL_FAILURE)
                reply.add_int(channel.remote_chanid)
                self._send_user_message(reply)  # type: ignore[attr-defined]
            return
        message.packet.seek(place)
        paramiko.Channel._handle_request(channel, message)  # type: ignore[attr-defined]
        if session is not None:
            session.begin()

    def _channel_close(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        # paramiko's own answers at once, and a client takes no exit status after the answer.
        ours: Any = channel
        with ours.lock:
            answers = ours._close_internal()
        self._unlink_channel(channel.get_id())  # type: ignore[attr-defined]

        def answer() -> None:
            for one in answers:
                if one is not None:
                    self._send_user_message(one)  # type: ignore[attr-defined]

        self._open.pop(channel.get_id(), None)
        self._may.closed(channel.get_id(), answer)

    def _queue_incoming_channel(self, channel: paramiko.Channel) -> None:
        # paramiko itself keeps weak references: an unused channel would close itself.
        self._open[channel.get_id()] = channel
        target = self._may.targets.pop(channel.get_id(), None)
        if target is not None:
            carry(channel, target)


class _Permissions(paramiko.ServerInterface):
    """What paramiko asks, on the connection's thread."""

    def __init__(
        self,
        wire: Wire,
        settings: Settings,
        home: str,
        key: paramiko.PKey,
        running: set[subprocess.Popen[bytes]],
    ) -> None:
        self._wire, self._settings, self._home = wire, settings, home
        self._key, self._running = key, running
        self.sessions: dict[int, Session] = {}
        self.targets: dict[int, socket.socket] = {}

    def closed(self, chanid: int, answer: Callable[[], object]) -> None:
        """The client has closed a channel: its session is free for another one."""
        session = self.sessions.pop(chanid, None)
        if session is None:
            answer()
        else:
            session.close(answer)

    def hang_up(self) -> None:
        """The connection is gone."""
        for session in self.sessions.values():
            session.hang_up()
        self.sessions.clear()
        for target in self.targets.values():
            target.close()

    # -- who may log in -----------------------------------------------------------------------

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if username != self._settings.user or key != self._key:
            return AUTH_FAILED
        self._wire.settimeout(_IDLE)
        return AUTH_SUCCESSFUL

    # -- channels -----------------------------------------------------------------------------

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind != "session":
            return OPEN_FAILED_UNKNOWN_CHANNEL_TYPE
        if len(self.sessions) >= self._settings.max_sessions:
            return OPEN_FAILED_CONNECT_FAILED  # what sshd says past MaxSessions
        self.sessions[chanid] = Session(self._settings, self._home, self._wire, self._running)
        return OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        if not is_here(destination[0]):
            return OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        try:
            target = socket.create_connection(destination, timeout=_CONNECT_TIMEOUT)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        target.settimeout(None)
        self.targets[chanid] = target
        return OPEN_SUCCEEDED

    # -- requests of a session ----------------------------------------------------------------

    # A channel that forwards a port has no session: its requests are refused.

    def check_channel_env_request(
        self, channel: paramiko.Channel, name: bytes, value: bytes
    ) -> bool:
        text = os.fsdecode(name)
        allowed = any(fnmatch.fnmatchcase(text, one) for one in self._settings.accept_env)
        session = self.sessions.get(channel.get_id())
        if session is None or not allowed:
            return False
        session.set_env(text, os.fsdecode(value))
        return True

    def check_channel_pty_request(
        self,
        channel: paramiko.Channel,
        term: bytes,
        width: int,
        height: int,
        pixelwidth: int,
        pixelheight: int,
        modes: bytes,
    ) -> bool:
        session = self.sessions.get(channel.get_id())
        size = (height, width)
        return session is not None and session.set_terminal(os.fsdecode(term), size, modes)

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        session = self.sessions.get(channel.get_id())
        if session is not None:
            session.resize((height, width))
        return session is not None

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        session = self.sessions.get(channel.get_id())
        return session is not None and session.start(channel, command)

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        session = self.sessions.get(channel.get_id())
        return session is not None and session.start(channel, None)
