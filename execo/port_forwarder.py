"""TCP ports of this machine that lead to services as seen from a host."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NoReturn, Self, Unpack

from ._core.latch import Latch
from ._core.pool import wait as wait_for
from .errors import ProcessError, ProcessesFailed, Reason
from .forwarding.request import Listen, place
from .host import Host
from .lifecycle import Run
from .outcome import State
from .ports import get_port
from .process_state import ProcessArgs
from .ssh_process import SshProcess
from .time_utils import get_seconds

__all__ = ["PortForwarder", "get_port"]


class PortForwarder(SshProcess):
    """Listens on a TCP port here, and carries each connection to ``remote_host``:``remote_port``
    as seen from ``host``. ::

        with PortForwarder("gateway", "db", 5432) as f:
            socket.create_connection(("127.0.0.1", f.local_port))

    At the start of the block it waits until it listens and ``host`` is reached; at the end of the
    block it is killed, which is its normal end. Without a block, ``start()`` returns at once, and
    :attr:`forwarding` tells. It is a process as any other (``timeout``, handlers, reports, ...),
    without a pid and without output.

    The connection with ``host`` is shared with its processes. Where ``connection_params`` select
    the openssh transport, an ``ssh -L`` does the work.

    A port that is taken, a host that cannot be reached or that forwards nothing, a connection that
    is lost: these end it, with a ``message``. A destination that does not answer ends the client's
    connection alone; that is logged, save with openssh, which does not tell. It ends with the
    script, whatever ``configuration["kill_childs_at_end"]`` says. (execo 2.8.2, where it is always
    an ssh)

    :param host: the host that is connected with: a Host or an address
    :param remote_host: where to, a name or address as ``host`` knows it
    :param remote_port: the port there, from 1 to 65535
    :param local_port: the port here; None = what :func:`~execo.utils.get_port` gives now, see the
      attribute ``local_port``
    :param bind_address: the address to listen on; None = 127.0.0.1, ``*`` = all. Whoever reaches
      it reaches the service
    :param connection_params: as for :class:`~execo.process.SshProcess`; ``forwarding_timeout`` is
      the seconds that ``with`` waits
    :param connexion_params: the reference document's name of ``connection_params``
    :param options: see :class:`~execo.process_state.ProcessState`
    :raises TypeError: for arguments of a wrong type
    :raises ValueError: for ports and hosts that cannot be any
    :raises OSError: if no local port is free
    """

    def __init__(
        self,
        host: str | Host,
        remote_host: str | Host,
        remote_port: int,
        local_port: int | None = None,
        bind_address: str | None = None,
        connection_params: Mapping[str, Any] | None = None,
        *,
        connexion_params: Mapping[str, Any] | None = None,
        **options: Unpack[ProcessArgs],
    ) -> None:
        self.remote_host = _address("remote_host", remote_host)
        self.remote_port = _port("remote_port", remote_port)
        here = "127.0.0.1" if bind_address is None else bind_address
        self.bind_address = here if here in ("", "*") else _address("bind_address", here)
        self.local_port = get_port() if local_port is None else _port("local_port", local_port)
        #: Set when it listens and the host is reached; cleared by ``reset()``.
        self.forwarding = threading.Event()
        self._listening = Latch()
        self.host = Host(host)
        super().__init__(
            cmd=self._command_text(),
            host=self.host,
            connection_params=connection_params,
            connexion_params=connexion_params,
            **options,
        )

    # -- starting and ending --------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Start it and block until it forwards, at most ``connection_params["forwarding_timeout"]``
        seconds.

        :raises ProcessesFailed: if it does not, or not any more; it has ended then, and says why
          (``message``)
        """
        try:
            self._wait_forwarding()
        except BaseException:
            self.kill()  # a Ctrl-C: nobody comes to the end of the block
            raise
        if self.ended or not self.forwarding.is_set():
            raise ProcessesFailed([self.wait()])
        return self

    def _wait_forwarding(self) -> None:
        self.start()
        run = self._run
        assert run is not None
        seconds = get_seconds(self.connection_params["forwarding_timeout"])
        settled = Latch()
        self._listening.add(settled.fire)
        run.end_latch.add(settled.fire)
        if not wait_for(settled, seconds):
            run.runtime.loop.run_sync(self._give_up, run, seconds)

    def _give_up(self, run: Run, seconds: float) -> None:
        if run.state is State.STARTING:
            text = f"{self.name}: not within {seconds:g} s (forwarding_timeout)"
            run.on_error(ProcessError(text, reason=Reason.TIMEOUT, host=self.host.address))

    def reset(self) -> Self:
        super().reset()
        self.forwarding.clear()
        self._listening = Latch()
        return self

    def _on_listening(self) -> None:
        self.forwarding.set()
        self._listening.fire()

    # -- what it has none of --------------------------------------------------------------------

    def write(self, data: str | bytes) -> NoReturn:
        """Not for this one: what is to be carried goes to its port.

        :raises TypeError: always
        """
        raise TypeError(f"{self!r}: nothing can be written to it; connect to its port")

    def close_stdin(self) -> NoReturn:
        """Not for this one.

        :raises TypeError: always
        """
        raise TypeError(f"{self!r}: it has no input; kill() ends it")

    # -- for the rest of the house --------------------------------------------------------------

    @property
    def name(self) -> str:
        """For messages: the name given, or what it does."""
        return self._command_text() if self._name is None else self._name

    @name.setter
    def name(self, value: str | None) -> None:
        self._name = value

    def _command_text(self) -> str:
        here = place(self.bind_address or "*", self.local_port)
        there = place(self.remote_host, self.remote_port)
        return f"forward {here} to {there} by {self.host.address}"

    def _place(self) -> str:
        return ""  # the name says it

    def _request(self) -> Listen:
        request = super()._request()
        if request.relay:
            raise ValueError("a forwarder cannot be detached: its port is one of this script")
        carrier, self.transport = self.transport, "forward"
        return Listen(
            self._command_text(),
            kill_timeout=request.kill_timeout,
            target=request.target,
            transport=carrier,
            bind=self.bind_address,
            port=self.local_port,
            to_host=self.remote_host,
            to_port=self.remote_port,
            on_listening=self._on_listening,
        )


def _port(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a number, not {value!r}")
    if not 0 < value < 65536:
        raise ValueError(f"{what} is from 1 to 65535: not {value!r}")
    return int(value)


def _address(what: str, value: Any) -> str:
    address = value.address if isinstance(value, Host) else value
    if not isinstance(address, str):
        raise TypeError(f"{what} is a name or an address, not {value!r}")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    # ssh takes a name with a slash for a file.
    if not address or "/" in address or not all(c.isprintable() and c != " " for c in address):
        raise ValueError(f"{what} is a name or an address: not {value!r}")
    return address
