"""The seam between processes and the ways to run them: requests, channels, sinks.

A transport opens one channel for each request and tells its sink what happens. The order of a
sink's calls, one at a time::

    on_open      in the thread of open_all(), before it returns
    on_start     the command runs                        } on the I/O thread
    on_data*     bytes of a stream                       }
    on_eof       once a stream, in any order with        }
    on_exit      the command has exited                  }

    on_error     instead of on_start and all that follows: it could not be started;
                 or at any time until on_exit: it is lost, nothing more will come
    on_written   bytes of write() were taken; on_write_error: they cannot be any more

Every transport, the scripted fake too, passes the same contract test.
"""

from __future__ import annotations

import ipaddress
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from execo.errors import NotSupported, ProcessError

__all__ = [
    "ENDING_SIGNALS",
    "Algorithms",
    "Become",
    "Channel",
    "ConnectionOptions",
    "Exec",
    "Forward",
    "Lease",
    "Login",
    "Request",
    "Sink",
    "Target",
    "Transport",
    "TreeWays",
    "is_loopback",
    "not_supported",
]

ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGINT})
"""Signals that are meant to end a process. Others (HUP, USR1, STOP, CONT, ...) talk to it."""


@dataclass(frozen=True, slots=True)
class Login:
    """What to log in with. Callbacks run on threads of ours, one at a time, and may block.

    :param methods: the methods of login that may be tried, in this order
    :param identities: the files of private keys to try, in this order, beside the target's own;
      None = the usual ones of ``~/.ssh``
    :param certificates: the files of the certificates that go with keys; ``KEY-cert.pub`` beside a
      key is found without being named
    :param identities_only: of the agent's keys only those whose files are named
    :param agent: the agent's socket; None = that of ``SSH_AUTH_SOCK``; ``none`` = no agent
    :param password: the password, or who is asked for it: ``password(host, user)``, None = none
    :param passphrase: that of key files, or who is asked for it: ``passphrase(path)``
    :param answers: who answers the questions of a host (keyboard-interactive, RFC 4256):
      ``answers(host, user, title, instructions, [(prompt, echo), ...])`` gives a list of texts
    """

    identities: tuple[str, ...] | None = None
    certificates: tuple[str, ...] = ()
    identities_only: bool = False
    agent: str | None = None
    methods: tuple[str, ...] = ("publickey", "keyboard-interactive", "password")
    password: str | Callable[[str, str], str | None] | None = field(default=None, repr=False)
    passphrase: str | Callable[[str], str | None] | None = field(default=None, repr=False)
    answers: Callable[[str, str, str, str, Sequence[tuple[str, bool]]], Sequence[str]] | None = (
        field(default=None, repr=False)
    )


@dataclass(frozen=True, slots=True)
class Algorithms:
    """The algorithms that may be used, each list with the preferred first; None = all that are
    safe. ``least_rsa_bits``: RSA keys with fewer are refused."""

    ciphers: tuple[str, ...] | None = None
    macs: tuple[str, ...] | None = None
    key_exchanges: tuple[str, ...] | None = None
    host_keys: tuple[str, ...] | None = None
    signatures: tuple[str, ...] | None = None
    least_rsa_bits: int = 0


class TreeWays(Protocol):
    """Which gateways hosts are reached through. For any thread; one is equal to itself alone."""

    fanout: int
    """How many hosts a gateway may be connecting to at a time."""

    def parents(self, name: str) -> Sequence[str]:
        """The gateways of which any one leads to the host ``name``; none: it is reached
        directly."""

    def direct(self, name: str) -> tuple[str, Target]:
        """How the gateway ``name`` is reached directly: a transport and a target.

        :raises ExecoError: where it cannot be
        :raises ValueError: likewise
        """

    def below(self, name: str) -> Target:
        """How the gateway ``name`` is reached from another gateway."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How to connect, as far as it does not depend on the host.

    :param host_key_policy: ``off``, ``accept-new`` or ``strict``
    :param policy_chosen: the policy was asked for; a password goes to no host that is trusted by
      default alone
    :param known_hosts: the files of known host keys, new ones go into the first; none = the user's
      and the system's
    :param hash_known_hosts: names are hashed in what is added to them
    :param host_key_alias: the name to look for in them; None = that of the target
    :param connect_timeout: seconds that a host may take at each step of a connection (to answer,
      to agree on keys, to let us in); None = the system's limits
    :param keepalive: seconds without a word from the host after which it is asked, while anything
      runs there, whether it is still there; None = it never is
    :param keepalive_count: questions without an answer until the connection is lost
    :param idle_limit: seconds after which a connection that nobody uses is closed; None = never
    :param login: what to log in with
    :param algorithms: which algorithms may be used
    :param env: variables sent with each command; a server takes those it accepts (AcceptEnv)
    :param guard: keep a small shell on the host, which signals what commands have started and
      ends it if this process is lost
    :param ssh: the words of the ssh command, for transports that run one
    :param ssh_options: more words for it
    :param taktuk: the words of the taktuk command, for the transport that runs one; ``ssh`` and
      ``ssh_options`` are its connector then
    :param tree: through which gateways hosts are reached, for the transport ``tree``; ``ssh`` and
      ``ssh_options`` are those of the gateways then
    """

    host_key_policy: str = "off"
    policy_chosen: bool = False
    known_hosts: tuple[str, ...] = ()
    hash_known_hosts: bool = False
    host_key_alias: str | None = None
    connect_timeout: float | None = 20.0
    keepalive: float | None = 30.0
    keepalive_count: int = 3
    idle_limit: float | None = 600.0
    login: Login = Login()
    algorithms: Algorithms = Algorithms()
    env: tuple[tuple[str, str], ...] = ()
    guard: bool = True
    ssh: tuple[str, ...] = ("ssh",)
    ssh_options: tuple[str, ...] = ()
    taktuk: tuple[str, ...] = ()
    tree: TreeWays | None = field(default=None, repr=False)

    @property
    def trust_decided(self) -> bool:
        """Somebody has said how the keys of hosts are looked at: passwords may go there."""
        return self.host_key_policy != "off" or self.policy_chosen


@dataclass(frozen=True, slots=True)
class Target:
    """What identifies a connection: processes with equal targets may share one.

    :param address: where to connect: a name or an IP address, without brackets
    :param user: None = the transport's default, most often the local user
    :param port: None = the transport's default, most often 22
    :param keyfile: the private key; None = the agent's and the usual ones
    :param options: the rest
    :param family: ``inet`` or ``inet6``, for a name that has addresses of both; None = any
    :param via: the host through which it is reached; None = directly
    :param proxy_command: the command, for ``sh -c``, whose stdin and stdout are the connection;
      None = none
    :param name: the host as the user wrote it, for messages
    """

    address: str
    user: str | None = None
    port: int | None = None
    keyfile: str | None = None
    options: ConnectionOptions = ConnectionOptions()
    family: str | None = None
    via: Target | None = None
    proxy_command: str | None = None
    name: str = field(default="", compare=False)

    @property
    def hops(self) -> int:
        """How many hosts it is behind."""
        return 0 if self.via is None else self.via.hops + 1


@dataclass(frozen=True, slots=True)
class Become:
    """Run as another user of the host than the one who logs in.

    :param user: that user
    :param method: the program that does it: ``sudo``, ``su`` or ``doas``
    :param password: what it asks for, or who is asked for it: ``password(host, user)`` with the
      user to become, on a thread of ours; None = it is not to ask
    """

    user: str
    method: str = "sudo"
    password: str | Callable[[str, str], str | None] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a command.

    :param command: a text for the shell of the place, or the words of a command without a shell
    :param cwd: the folder to run in; None = the transport's own
    :param env: variables to set (a value None unsets), on top of what the place provides
    :param pty: stdin and stdout are a terminal
    :param group: signals go to everything that the command started, not to itself alone
    :param kill_timeout: seconds that what survives its ended leader has after a signal that was
      meant to end it; None = for ever
    :param detach: the command is left alone when the script ends or dies
    :param relay: its stdin is empty, and relays take its output, also when nobody here does any
      more, see ``execo.transports.detached``; not with ``pty``
    :param relayed: the command sees to that itself, once it has read its first words from stdin
    :param target: the host to run it on; None = this machine
    :param become: whom to run it as, for the transport ``become``; None = who logs in
    :param secret_env: variables to set, too, that nobody else gets to see; for the transports
      ``become`` and ``local``
    :param through: the transport that carries it, for the transport ``become``
    """

    command: str | tuple[str, ...]
    cwd: str | None = None
    env: Mapping[str, str | None] | None = None
    pty: bool = False
    group: bool = True
    kill_timeout: float | None = 60.0
    detach: bool = False
    target: Target | None = None
    relay: bool = False
    relayed: bool = False
    become: Become | None = None
    secret_env: Mapping[str, str] | None = field(default=None, repr=False)
    through: str = ""


@dataclass(frozen=True, slots=True)
class Forward:
    """Carry a TCP connection to ``host``:``port`` as seen from the target.

    ``write`` sends to it, ``close_stdin`` ends that direction alone; what it sends comes as stream
    1. It exits with 0 when both directions have ended, with a signal that was meant to end it at
    once. It is no command: no limit of these holds it up.

    What cannot be reached is an error with the reason ``connect``; a target that carries nothing
    there at all is a :class:`~execo.errors.SpawnError` with this reason.
    """

    host: str
    port: int
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Keep a connection to the target, for Forwards to come: ``on_start`` when we are let in,
    ``on_error`` when the connection cannot be made or is lost. A signal that is meant to end it
    gives it back."""

    target: Target | None = None


Request = Exec | Forward | Lease


class Sink(Protocol):
    """Is told what happens to one request. No call may block, and none may raise."""

    def on_open(self, channel: Channel) -> None: ...
    def on_start(self) -> None: ...
    def on_data(self, stream: int, data: bytes) -> None: ...

    def on_eof(self, stream: int, error: OSError | None) -> None:
        """Nothing more comes of it; ``error`` if some is lost: it has the ProcessError that is
        behind it as its cause, if there is one."""

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        """``status`` is the raw wait status, None if it is not known; then ``error`` says why."""

    def on_error(self, error: ProcessError) -> None: ...
    def on_written(self, count: int) -> None: ...
    def on_write_error(self, error: OSError) -> None: ...


class Channel(Protocol):
    """One request on its way. The methods belong to the I/O thread and do not block.

    The attributes may be read from any thread at any time; where open_all() starts a command at
    once, they are set when it returns.

    - ``pid``: the process id at the place, None until known
    - ``start_date``: when it started, a unix timestamp, None until then
    - ``waited``: seconds that it had to wait for a slot
    - ``failed``: it could not be started; on_error is on its way
    - ``process``: what the transport runs it with, for the curious: the local one's Popen
    - ``descriptors``: our ends of its stdin, stdout and stderr, None where there are none
    """

    pid: int | None
    start_date: float | None
    waited: float
    failed: bool
    process: object

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]: ...

    def write(self, data: bytes) -> None: ...
    def close_stdin(self) -> None: ...

    def send_signal(self, number: int) -> bool:
        """Signal what runs, until forget() also what an exited command left running. Nothing
        happens before on_start. False if the command itself is known to have exited."""

    def pause(self) -> None:
        """Deliver no data until resume(): the command is held up, nothing is lost."""

    def resume(self) -> None: ...

    def forget(self) -> None:
        """The sink has ended: what the command left behind is left alone, its output dropped."""

    def abort(self) -> None:
        """Give up: on_error follows if it has not started; what has started is killed hard."""


class Transport(Protocol):
    """A way to run commands somewhere.

    It may have one more method, ``statistics() -> Mapping[str, int]``: what it is doing, in
    numbers. From any thread, without blocking; see :func:`execo.transports.statistics`.
    """

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        """Open a channel for each request. From any thread but the I/O thread; may block for as
        long as the system takes to start a local program. What fails goes to the sink. Forwards
        and Leases alone never block, and may come from the I/O thread.

        :raises NotSupported: for a kind of request that this transport lacks
        """

    def close_idle(self) -> None:
        """Give back what is only kept for requests to come. From any thread."""

    def close(self) -> None:
        """End what runs and give everything back. At exit, from the main thread."""


def is_loopback(address: str) -> bool:
    """Whether an IP address is one of this machine alone; False for a name."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def not_supported(transport: str, request: Request) -> NotSupported:
    """The error for a kind of request that ``transport`` lacks."""
    kind = type(request).__name__
    return NotSupported(f"the transport {transport!r} cannot do {kind}: choose another transport")
