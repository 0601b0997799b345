"""The configuration: two dicts, and the user's file ``~/.execo.conf.py`` which changes them.

:data:`configuration` holds the global parameters, :data:`default_connection_params` what a
connection uses where neither the host nor the call says otherwise. Both are plain dicts; a script
changes them in place at any time::

    from execo.config import configuration, default_connection_params

    configuration["kill_timeout"] = 10
    default_connection_params["user"] = "root"

``~/.execo.conf.py`` is a Python file, run once, when this module is imported. It gives the keys to
change in dicts of the same names::

    from execo.config import TAKTUK

    configuration = {"remote_tool": TAKTUK, "color_styles": {"host": ("cyan", "bold")}}
    default_connection_params = {"user": "root", "connect_timeout": 5}

It may also edit ``configuration`` imported from here in place. It must import from
``execo.config`` only, since the rest of execo is not there yet while it runs.

- An error in it, or a value that cannot be right, is a :class:`~execo.errors.ConfigError` that
  names file and line, and the import stops.
- A key that does not exist is left out, with a :class:`ConfigWarning`.
- A file that somebody else could have written (owner, write permissions, a directory open to
  everybody) is not run, with a :class:`ConfigWarning` that says what to do. Files of root are
  fine: root can do anything anyway.
- No file, or no ``HOME``: the defaults hold, and nothing is said.

"connexion" is accepted wherever "connection" is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._config_rules import CONFIGURATION_RULES, CONNECTION_RULES, Rule, is_words, kept, shown
from ._config_rules import Secret as Secret
from ._config_rules import can_be_sent as can_be_sent
from ._user_file import (
    ConfigWarning,
    default_file,
    line_with,
    read_trusted,
    run_file,
    warn,
)
from .errors import ConfigError

__all__ = [
    "ANSI_CODES",
    "CHAINPUT",
    "DETAIL",
    "FDEBUG",
    "IODEBUG",
    "SCP",
    "SSH",
    "TAKTUK",
    "TRACE",
    "BuiltIn",
    "ConfigWarning",
    "Secret",
    "configuration",
    "default_connection_params",
    "default_connexion_params",
    "given_params",
    "load_configuration",
    "make_connection_params",
    "make_connexion_params",
    "ssh_config_words",
]

#: Tools for ``remote_tool`` (SSH, TAKTUK), ``fileput_tool`` (SCP, TAKTUK, CHAINPUT) and
#: ``fileget_tool`` (SCP, TAKTUK).
SSH, SCP, TAKTUK, CHAINPUT = range(4)

#: Log levels beside those of :mod:`logging`.
IODEBUG, FDEBUG, TRACE, DETAIL = 3, 5, 12, 15

_COLORS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")

#: The words that a value of ``color_styles`` is made of, with their ANSI (SGR) codes.
ANSI_CODES: dict[str, int] = {
    "bold": 1,
    "dim": 2,
    "italic": 3,
    "underline": 4,
    "blink": 5,
    "reverse": 7,
    **{color: 30 + i for i, color in enumerate(_COLORS)},
    **{f"on_{color}": 40 + i for i, color in enumerate(_COLORS)},
    **{f"bright_{color}": 90 + i for i, color in enumerate(_COLORS)},
}


# _STARTOF_ configuration
configuration: dict[str, Any] = {
    # Least level of the log messages shown: a number, or a name such as "DEBUG" or "DETAIL".
    # Read when execo.log is imported; afterwards, logger.setLevel() changes it. Default: WARNING.
    "log_level": logging.WARNING,
    # Tool that runs commands on hosts: SSH or TAKTUK. Default: SSH.
    "remote_tool": SSH,
    # Tool that copies files to hosts: SCP, TAKTUK or CHAINPUT. Default: SCP.
    "fileput_tool": SCP,
    # Tool that copies files from hosts: SCP or TAKTUK. Default: SCP.
    "fileget_tool": SCP,
    # Output longer than this many characters is shown shortened to its head and tail when a
    # process is dumped or logged; what is kept in stdout and stderr stays whole.
    # 0: never shorten. Default: 4096.
    "compact_output_threshold": 4096,
    # Seconds between the signal sent by kill() and SIGKILL for what is still alive.
    # None: no SIGKILL. Default: 60.
    "kill_timeout": 60,
    # Whether the processes that still run when the script exits are killed. Default: True.
    "kill_childs_at_end": True,
    # Seconds between SIGTERM and SIGKILL for the processes killed when the script exits.
    # Default: 2.0.
    "term_timeout": 2.0,
    # Seconds without output after the exit of a process, after which it has ended although
    # something that it left behind still holds its stdout or stderr. Default: 0.5.
    "drain_timeout": 0.5,
    # Bytes kept of stdout, and as many of stderr, per process. None: all. Default: None.
    "max_output": None,
    # Bytes of output that may wait for a slow output handler before the process is paused.
    # Default: 1048576 (1 MiB).
    "handler_queue_size": 1024 * 1024,
    # Failed processes logged one by one per action; the others are summed up in one message.
    # Default: 10.
    "max_failure_logs": 10,
    # First and last local TCP port that execo may choose from. Default: (25500, 26700).
    "port_range": (25500, 26700),
    # Seconds between two switches of threads of the Python interpreter, set when the first process
    # starts (sys.setswitchinterval). A script that computes while it reads much output gains
    # from 0.0005. None: leave Python's own. Default: None.
    "switch_interval": None,
    # Seconds. Kept for scripts that set it; nothing uses it. Default: 1.
    "intr_period": 1,
    # Whether a terminal shows how far things are: True (all actions, as they run), False (nothing),
    # or None for what execo.progress.show() names. Default: None.
    "progress": None,
    # Colours: True, False, or None for colours only on a terminal, and only if the environment
    # variable NO_COLOR is unset or empty. Default: None.
    "color_mode": None,
    # Colours of the parts of messages and of the log levels: tuples of words of ANSI_CODES.
    # A dict given in ~/.execo.conf.py changes only the names in it.
    "color_styles": {
        "log_header": ("yellow",),
        "object_repr": ("blue", "bold"),
        "emph": ("magenta", "bold"),
        "report_warn": ("magenta",),
        "report_error": ("red", "bold"),
        "command": ("blue", "bold"),
        "host": ("magenta", "bold"),
        "user1": ("green", "bold"),
        "user2": ("yellow", "bold"),
        "user3": ("cyan", "bold"),
        logging.CRITICAL: ("red", "bold", "reverse"),
        logging.ERROR: ("red", "bold"),
        logging.WARNING: ("magenta", "bold"),
        logging.INFO: ("green", "bold"),
        DETAIL: ("green",),
        TRACE: ("cyan", "bold"),
        logging.DEBUG: ("cyan",),
        FDEBUG: ("blue",),
        IODEBUG: ("dim",),
    },
}
# _ENDOF_ configuration
"""Global parameters.

The keys are those of execo 2.8.2, with WARNING as the log level as in the reference document;
``switch_interval``, ``drain_timeout``, ``max_output``, ``max_failure_logs``,
``handler_queue_size``, ``term_timeout`` and ``progress`` are new in execo 3. Durations are numbers
of seconds.
"""


class BuiltIn(int):
    """A number that holds where nobody has said anything. What ``~/.ssh/config`` says comes before
    it, and after the same number where a script or ``~/.execo.conf.py`` has set it."""


# _STARTOF_ default_connection_params
default_connection_params: dict[str, Any] = {
    # User to log in as. None: as ~/.ssh/config says, or else the local user. Default: None.
    "user": None,
    # File of the private key. None: as ~/.ssh/config says, the agent's and the usual ones.
    # Default: None.
    "keyfile": None,
    # Password, for hosts that ask for one: a string, or a function from host and user to it, called
    # once for each. None: none is sent. Only inside this process (paramiko). Default: None.
    "password": None,
    # Passphrase of key files: a string, or a function from the file's path to it, called once for
    # each file. None: the program that SSH_ASKPASS names, as for ssh, or else such files are used
    # through the agent alone. Default: None.
    "passphrase": None,
    # Function that answers what hosts ask at the login, a second factor for one:
    # answers(host, user, title, instructions, [(question, shown), ...]) gives a list of strings.
    # None: a single question is answered with the password. Default: None.
    "answers": None,
    # TCP port of the ssh server. None: as ~/.ssh/config says, or else 22. Default: None.
    "port": None,
    # How hosts are reached: "paramiko" (inside this process, connections are kept and shared),
    # "openssh" (the ssh command), or "auto": paramiko, and openssh where ssh is set, or where the
    # options below or ~/.ssh/config ask for what paramiko cannot do. Default: "auto". "taktuk" (one
    # taktuk command for all hosts of an action) is what TaktukRemote sets, "tree" (through
    # gateways: topology) what TreeRemote sets.
    "transport": "auto",
    # What to do with host keys: "off" (accept any, record none: for testbeds that are redeployed;
    # not safe elsewhere), "accept-new" (record new ones, refuse changed ones) or "strict" (refuse
    # unknown ones too). None: as ~/.ssh/config says explicitly, or else "off". Default: None.
    "host_key_policy": None,
    # The configuration of ssh that says how hosts are reached: None for ~/.ssh/config and
    # /etc/ssh/ssh_config, the path of a file for that file alone (ssh -F), False or "none" for no
    # file. Default: None.
    "ssh_config": None,
    # Seconds that a host may take at each step of a connection: to answer, to agree on keys, to
    # let us in. None: the system's own limit. Default: 20, or ConnectTimeout in ~/.ssh/config.
    "connect_timeout": BuiltIn(20),
    # Seconds without a word from a host after which it is asked, while something runs there,
    # whether it is still there. None: it never is. Default: 30, or ServerAliveInterval in
    # ~/.ssh/config.
    "keepalive": BuiltIn(30),
    # Seconds after which a connection that nobody uses is closed. None: never. Default: 600.
    "idle_limit": 600,
    # Whether a small shell is kept on each host, beside the commands: it signals all that they
    # have started, and ends them if this script is killed. Where it is False (switches and other
    # hosts without a shell, forced commands), kill() reaches the command alone, if the host
    # allows it. Default: True.
    "guard": True,
    # Seconds to wait for a port forwarding to listen. None: for ever. Default: 25.
    "forwarding_timeout": 25,
    # Whether remote commands get a pseudo terminal. Default: False.
    "pty": False,
    # User of the host that commands run as, other than the one who logs in. None: who logs in.
    # Default: None.
    "become": None,
    # The program that does it: "sudo", "su" or "doas" (which asks for a password on a terminal
    # only, see pty). Default: "sudo".
    "become_method": "sudo",
    # The password that this program asks for (of sudo and doas that of who logs in, of su that of
    # the other user), or a function from host and user to become to it, which may ask a human.
    # None: it is not to ask. Default: None.
    "become_password": None,
    # Function from a host's address to the address to connect to. None: no change. Default: None.
    "host_rewrite_func": None,
    # The ssh command, if it must be that one: setting it selects openssh. Default: None.
    "ssh": None,
    # More words for ssh, beside those that follow from the keys above. Default: none.
    "ssh_options": (),
    # The scp command, if Put and Get must use that one. Default: None.
    "scp": None,
    # More words for scp, beside those that follow from the keys above. Default: none.
    "scp_options": (),
    # The taktuk command. Default: "taktuk".
    "taktuk": "taktuk",
    # Words for taktuk. Default: -s (taktuk sends itself to the hosts).
    "taktuk_options": ("-s",),
    # The command with which taktuk connects to hosts. Default: "ssh".
    "taktuk_connector": "ssh",
    # More words for it, beside those that follow from the keys above. Default: none.
    "taktuk_connector_options": (),
    # Through which gateways hosts are reached, where the transport is "tree": the path of a file in
    # ClusterShell's format (topology.conf), or what load_topology() gives. Default: None.
    "topology": None,
    # How many hosts a gateway may be connecting to at a time. Default: 32.
    "tree_fanout": 32,
    # All that follow are of execo 2.8.2, and have no effect: ChainPut uses ssh.
    # ChainPut: netcat on the hosts. Default: "/bin/nc.traditional -v -v".
    "nc": "/bin/nc.traditional -v -v",
    # ChainPut: seconds that a sending netcat waits. Default: 5.
    "chainput_nc_client_timeout": 5,
    # ChainPut: seconds that a receiving netcat waits. Default: 30.
    "chainput_nc_server_timeout": 30,
    # ChainPut: tries per host; a float is a share of the number of hosts. Default: 5.
    "chainput_host_retry": 5,
    # ChainPut: tries of the whole chain; a float is a share of the number of hosts. Default: 10.
    "chainput_chain_retry": 10,
    # ChainPut: seconds between two tries. Default: 1.
    "chainput_try_delay": 1,
}
# _ENDOF_ default_connection_params
"""What a connection uses where neither the host nor the call says otherwise.

A host's own user, keyfile and port come first, then the ``connection_params`` given to the
process or action, then this dict. Also named ``default_connexion_params``, as in the reference
document: one object, two names.

The keys are those of execo 2.8.2; ``transport``, ``host_key_policy``, ``ssh_config``,
``connect_timeout``, ``keepalive`` and ``idle_limit`` are new in execo 3. ``ssh``, ``scp`` and their
options are empty by default, since commands normally run over connections inside this process.
"""

#: The same dict as :data:`default_connection_params`.
default_connexion_params = default_connection_params

_BUILTIN_CONNECTION_PARAMS = dict(default_connection_params)


def _is_styles(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        is_words(words) and all(word in ANSI_CODES for word in words) for words in value.values()
    )


_CONFIGURATION_RULES: dict[str, Rule] = {
    **CONFIGURATION_RULES,
    "remote_tool": (lambda value: value in (SSH, TAKTUK), "SSH or TAKTUK"),
    "fileput_tool": (lambda value: value in (SCP, TAKTUK, CHAINPUT), "SCP, TAKTUK or CHAINPUT"),
    "fileget_tool": (lambda value: value in (SCP, TAKTUK), "SCP or TAKTUK"),
    "color_styles": (_is_styles, "a dict of tuples of words of execo.config.ANSI_CODES"),
}


def _nearest(key: object, known: Mapping[str, Any]) -> str:
    """The known key nearest to a wrong one, as the end of a message."""
    from difflib import get_close_matches  # only when somebody mistypes: it takes time to import

    found = get_close_matches(str(key), known, n=1)
    return f"did you mean {found[0]!r}?" if found else f"the keys are: {', '.join(known)}"


def make_connection_params(
    connection_params: Mapping[str, Any] | None = None,
    default_params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Complete connection parameters with the defaults.

    As in execo 2.8.2: the built-in values, changed by ``default_params``, changed by
    ``connection_params``. Lists of options become tuples.

    :param connection_params: the keys to change
    :param default_params: the defaults, :data:`default_connection_params` if None
    :returns: a new dict with every key
    :raises TypeError: for a key that does not exist; it names the key and the nearest known one
        (execo 3: a mistyped key was silently without effect)
    :raises ValueError: for a value that cannot be right
    """
    for given in (connection_params, default_params):
        if not isinstance(given, (Mapping, type(None))):
            # A list of pairs would show the password that is in it.
            got = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
            raise TypeError(f"connection parameters are a dict, not {got}")
    if default_params is None:
        default_params = default_connection_params
    params = {**_BUILTIN_CONNECTION_PARAMS, **default_params, **(connection_params or {})}
    params = {key: kept(key, value) for key, value in params.items()}
    # What is raised from here on has no frame of ours with a secret in it.
    del connection_params, default_params, given
    for key, value in params.items():
        if key not in CONNECTION_RULES:
            raise TypeError(
                f"unknown connection parameter {key!r}: {_nearest(key, CONNECTION_RULES)}"
            )
        test, expected = CONNECTION_RULES[key]
        if not test(value):
            got = shown(key, value)
            del params, value
            raise ValueError(f"connection parameter {key!r}: expected {expected}, got {got}")
    return params


def ssh_config_words(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that tell ssh and scp which files to read; none where they are the usual ones.

    :param params: complete connection parameters
    """
    chosen = params["ssh_config"]
    if chosen is None:
        return ()
    return ("-F", "none" if chosen is False else os.path.expanduser(os.fspath(chosen)))


def given_params(
    connection_params: Mapping[str, Any] | None, connexion_params: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """The one of two spellings of an argument that was given.

    :raises TypeError: if both were
    """
    if connection_params is not None and connexion_params is not None:
        raise TypeError("connection_params and connexion_params are the same: give one of them")
    return connexion_params if connection_params is None else connection_params


#: The same as :func:`make_connection_params`.
make_connexion_params = make_connection_params


# -- the user's file ---------------------------------------------------------------------------


def load_configuration(
    filename: str | os.PathLike[str] | None = None,
    dicts_confs: Iterable[tuple[dict[str, Any], str]] | None = None,
) -> bool:
    """Run a configuration file and put what it gives into the two dicts. Blocks while it runs.

    Called without a file name when this module is imported. To run the file again, or another
    one, call it again; values set before stay unless the file gives them.

    :param filename: the file; None for ``~/.execo.conf.py``, which may be missing
    :param dicts_confs: dicts of the script's own, each with the name that it has in the file: these
        are updated instead of the two, whatever they hold, and the file may be missing (execo
        2.8.2)
    :returns: True if a file was run, False if there is none or it was not trusted
    :raises ConfigError: if the file cannot be read, has an error, or gives a value that cannot be
        right; ``filename`` and ``lineno`` say where, ``__cause__`` is the error itself
    """
    path = default_file() if filename is None else os.path.abspath(os.fspath(filename))
    if path is None:
        return False
    try:
        source = read_trusted(path)
    except FileNotFoundError as exc:
        if filename is None or dicts_confs is not None:
            return False
        raise ConfigError("there is no such file", filename=path) from exc
    if source is None:
        return False
    namespace = run_file(source, path)
    if dicts_confs is not None:
        for target, name in dicts_confs:
            given = namespace.get(name, {})
            if not isinstance(given, Mapping):
                line = line_with(name, source, path)
                raise ConfigError(
                    f"{name} must be a dict, got {shown(name, given)}", filename=path, lineno=line
                )
            target.update(given)
        return True
    for target, names, rules in (
        (configuration, ("configuration",), _CONFIGURATION_RULES),
        (
            default_connection_params,
            ("default_connexion_params", "default_connection_params"),
            CONNECTION_RULES,
        ),
    ):
        # The file may have edited the dict in place: that is held to the same rules.
        _update(target, target, names[-1], rules, path, source)
        for name in names:
            given = namespace.get(name, target)
            if given is not target:
                _update(target, given, name, rules, path, source)
    return True


def _update(
    target: dict[str, Any],
    given: Any,
    name: str,
    rules: Mapping[str, Rule],
    path: str,
    source: bytes,
) -> None:
    """Put the given values into one of the two dicts, which may be the given one itself."""
    if not isinstance(given, Mapping):
        line = line_with(name, source, path)
        raise ConfigError(
            f"{name} must be a dict, got {shown(name, given)}", filename=path, lineno=line
        )
    for key, value in list(given.items()):
        if key not in rules:
            target.pop(key, None)
            line = line_with(key, source, path) or 0
            warn(f"unknown key {key!r} in {name}, ignored: {_nearest(key, rules)}", path, line)
            continue
        test, expected = rules[key]
        if not test(value):
            raise ConfigError(
                f"{name}[{key!r}]: expected {expected}, got {shown(key, value)}",
                filename=path,
                lineno=line_with(key, source, path),
            )
        if key == "color_styles":
            value = {**target[key], **value}
        target[key] = kept(key, value)


# Last, so that the file can import the names above from this module.
load_configuration()
