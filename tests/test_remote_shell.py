"""The texts for login shells, read by real ones; the guard, with real commands."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execo.transports.remote_shell import (
    CWD_EXIT,
    CWD_MESSAGE,
    ORDER_BYE,
    ORDER_END_FIRST,
    Hello,
    Mark,
    command_text,
    guard_text,
    join,
    kill_order,
    parse_hello,
    quote,
)
from fuzzing import cheap

LONG = 30.0
"""Seconds after which something hangs."""

POSIX = ["dash", "bash", "zsh", "ksh", "ash"]
SHELLS = [*POSIX, "csh", "tcsh", "fish"]


@pytest.fixture(scope="session")
def busybox() -> Iterator[Path]:
    """A folder of busybox's programs."""
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("busybox is missing: apt install busybox")
    with tempfile.TemporaryDirectory(prefix="execo-busybox-") as folder:
        os.chmod(folder, 0o755)
        subprocess.run([program, "--install", "-s", folder], check=True)
        yield Path(folder)


@pytest.fixture(scope="module")
def shell(request: pytest.FixtureRequest) -> str:
    """The path of the shell that the test is parametrized with."""
    if request.param == "ash":
        return str(request.getfixturevalue("busybox") / "ash")
    found: str | None = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is missing: see tests/install-servers")
    return found


every_shell = pytest.mark.parametrize("shell", SHELLS, indirect=True)
posix_shell = pytest.mark.parametrize("shell", POSIX, indirect=True)


def login(shell: str, text: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """What sshd does with a text."""
    return subprocess.run(
        [shell, "-c", text],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "SHELL": shell, **env},
        timeout=LONG,
    )


# -- words ------------------------------------------------------------------------------------

NASTY = "\\'\"!$`~#%*?[]{}();&|<>^=@:,- \t\r"
some_bytes = st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))


def without_line_feed(text: str) -> str:
    # Through bytes: what is left of two invalid characters may be a valid one.
    return os.fsdecode(os.fsencode(text).replace(b"\n", b""))


some_text = st.one_of(
    st.text(alphabet=NASTY + "a\n", max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    some_bytes,
)
one_line = some_text.map(without_line_feed)


@every_shell
@settings(max_examples=40)
@given(words=st.lists(one_line, max_size=8))
def test_every_shell_reads_the_words_that_were_joined(shell: str, words: list[str]) -> None:
    done = login(shell, join(["env", "printf", "%s\\0", "start", *words]))
    assert done.stderr == b""
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")] == ["start", *words, ""]


@every_shell
def test_every_shell_reads_each_awkward_word(shell: str) -> None:
    words = ["", "!", "!!", "a!b", "\\", "\\\\", "\\'", "'", "''", "-n", "~", "~root", "=ls", "#x"]
    words += [
        "%1",
        "%self",
        "$HOME",
        "`id`",
        "$(id)",
        "{a,b}",
        "*",
        "é\u4e2d",
        "\udcff\udc80",
        "\uf6ff",
    ]
    words += ["a" * 4000, "^x^y", "a\\", "\x7f\x01", " ", "if", "A=b"]
    done = login(shell, join(["env", "printf", "%s\\0", *words]))
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")] == [*words, ""]


def test_what_no_quoting_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote("a\0b")
    with pytest.raises(ValueError, match="line feed"):
        quote("a\nb")
    with pytest.raises(ValueError, match="at least one word"):
        join([])


# -- commands ---------------------------------------------------------------------------------

TELL = """
import json, os, sys
told = [os.getcwd(), sys.argv[1:], dict(os.environ), os.getpid()]
print(json.dumps(told))
"""
# Not TELL's own line feeds, so that both forms of the text are tried.
PYTHON = (sys.executable, "-ISc", f"exec({TELL!r})")

names = one_line.filter(lambda name: name and "=" not in name and not name.startswith("LC_"))
variables = st.dictionaries(st.one_of(st.sampled_from(["A", "-u", "B.c", "UID"]), names), some_text)
folders = some_text.filter(lambda name: name not in ("", ".", "..") and "/" not in name)


@every_shell
@settings(max_examples=20)
@given(
    words=st.lists(some_text, max_size=4),
    env=variables,
    folder=st.none() | folders.map(lambda name: name[:8]),
)
def test_words_get_folder_environment_and_mark(
    shell: str, words: list[str], env: dict[str, str], folder: str | None
) -> None:
    with tempfile.TemporaryDirectory() as root:
        cwd = None
        if folder is not None:
            cwd = f"{root}/{folder}"
            os.mkdir(cwd)
        text = command_text((*PYTHON, *words), cwd=cwd, env=env, mark=Mark("abc", 7))
        done = login(shell, text)
        assert done.stderr == b""
        where, got, environment, pid = json.loads(done.stdout)
        assert got == words
        if cwd is not None:
            assert where == os.path.realpath(cwd)
        env.pop("EXECO_MARK", None)
        assert {name: environment.get(name) for name in env} == env
        assert environment["EXECO_MARK"] == f"abc.7.{pid}"


@every_shell
def test_a_variable_is_unset_and_another_only_looks_like_it(shell: str) -> None:
    text = command_text(PYTHON, env={"GONE": None, "EMPTY": "", "SHELL": "/nowhere"})
    environment = json.loads(login(shell, text, GONE="x", STAYS="y").stdout)[2]
    assert "GONE" not in environment
    assert (environment["STAYS"], environment["EMPTY"]) == ("y", "")
    assert environment["SHELL"] == "/nowhere"


def test_a_mark_from_outside_is_not_passed_on() -> None:
    text = command_text(PYTHON, env={"EXECO_MARK": "old.1.1", "A": "b"}, mark=Mark("abc", 7, True))
    told = json.loads(login("/bin/sh", text).stdout)
    assert told[2]["EXECO_MARK"] == f"abc.7.{told[3]}.d"
    assert told[2]["A"] == "b"


@posix_shell
@pytest.mark.parametrize("folder", ["-", "-P", "+1", "~user", "$HOME", "x'y", "sub", "line\nfeed"])
def test_a_relative_folder_is_literal(shell: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere" / "sub").mkdir(parents=True)
    text = f"cd {tmp_path}; " + command_text("pwd", cwd=folder)
    done = login(shell, text, CDPATH=str(tmp_path / "elsewhere"), OLDPWD="/")
    assert done.stdout.decode() == f"{tmp_path}/{folder}\n"


@every_shell
def test_a_tilde_is_the_home_over_there(shell: str, tmp_path: Path) -> None:
    (tmp_path / "a 'b'").mkdir()
    assert login(shell, command_text("pwd", cwd="~"), HOME=str(tmp_path)).stdout.decode() == (
        f"{tmp_path}\n"
    )
    done = login(shell, command_text("pwd", cwd="~/a 'b'"), HOME=str(tmp_path))
    assert done.stdout.decode() == f"{tmp_path}/a 'b'\n"


@every_shell
@pytest.mark.parametrize(
    ("cwd", "why"),
    [
        ("/nowhere/a: 'b' %s", "No such file or directory"),
        ("/etc/passwd", "Not a directory"),
        ("-x", "No such file or directory"),
        ("~/none", "No such file or directory"),
    ],
)
def test_a_folder_that_cannot_be_entered_is_named(shell: str, cwd: str, why: str) -> None:
    done = login(shell, command_text("echo ran", cwd=cwd, mark=Mark("abc", 1)))
    assert done.stdout == b""
    assert done.stderr.decode() == f"{CWD_MESSAGE}{cwd}: {why}\n"
    assert done.returncode == CWD_EXIT


@posix_shell
@pytest.mark.parametrize(
    "command",
    [
        "",
        "echo $?; exit 3",
        "\n\necho after a line feed\n",
        "# a comment\necho text  # another\n",
        "cat <<EOF; echo more\nsome $((1 + 1)) 'text'\\n\nEOF\n",
        "set -e; false; echo not here",
        "false",
        "if true\nthen echo 'yes'; else\necho no; fi",
        'f() { echo in f $1; return 4; }\nf "it\'s"',
        "echo a! \\! '!' \"$HOME\" ~ '\\\\n' \"\\t\"",
        "printf 'a\\nb\\0c'; kill -9 $$",
        "true && echo a || echo b; (echo sub; exit 2)",
        "echo out; echo err >&2; no-such-program-here",
        "echo é \udcff end",
    ],
)
def test_a_command_means_the_same_with_a_mark(shell: str, command: str) -> None:
    def told(text: str) -> tuple[int, bytes, bool]:
        done = login(shell, text)
        return done.returncode, done.stdout, bool(done.stderr)

    bare = told(command_text(command))
    assert command_text(command) == command
    assert told(command_text(command, mark=Mark("abc", 7), posix=True)) == bare
    assert told(command_text(command, mark=Mark("abc", 7))) == bare
    assert told(command_text(command, cwd=os.getcwd(), env={"A": "b\nc"})) == bare


@pytest.mark.parametrize(
    ("shell", "command", "output"),
    [
        ("bash", 'x=(a b); [[ ${x[1]} == b ]] && echo "$EXECO_MARK" $$', b"abc.7.{0} {0}\n"),
        ("csh", "set x = (a b)\necho $x[2] $EXECO_MARK:r $$", b"b abc.7 {0}\n"),
        ("tcsh", "set x = (a b)\necho $x[2] $EXECO_MARK $$", b"b abc.7.{0} {0}\n"),
        ("fish", "set x a b\necho $x[2] $EXECO_MARK $fish_pid", b"b abc.7.{0} {0}\n"),
    ],
    indirect=["shell"],
)
def test_the_login_shell_reads_the_command_itself(shell: str, command: str, output: bytes) -> None:
    done = login(shell, command_text(command, mark=Mark("abc", 7), cwd="/"))
    pid = done.stdout.split()[-1]
    assert done.stdout == output.replace(b"{0}", pid)


@every_shell
def test_words_with_a_line_feed_need_no_setting(shell: str) -> None:
    done = login(shell, command_text(("printf", "%s.", "a\nb\n", "\\n", "'")))
    assert done.stdout == b"a\nb\n.\\n.'."


def test_words_are_not_read_by_a_shell() -> None:
    assert login("/bin/sh", command_text(("no-such-program",), cwd="/")).returncode == 127
    with tempfile.TemporaryDirectory() as folder:
        odd = Path(folder) / "a=b"
        odd.write_text('#!/bin/sh\necho "$A $1"\n')
        odd.chmod(0o755)
        done = login("/bin/sh", command_text((str(odd), "$x"), env={"A": "1"}))
        assert done.stdout == b"1 $x\n"


def test_the_cheap_form_is_a_prefix() -> None:
    text = command_text("make; make test", mark=Mark("0af", 12, detach=True), posix=True)
    assert text == "export EXECO_MARK=0af.12.$$.d; make; make test"


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("a\0", {}, "command"),
        (("a", "b\0"), {}, "command"),
        ((), {}, "at least one word"),
        ("a", {"cwd": "x\0"}, "cwd"),
        ("a", {"cwd": ""}, "cwd is empty"),
        ("a", {"env": {"": "x"}}, "not a name"),
        ("a", {"env": {"a=b": None}}, "not a name"),
        ("a", {"env": {"a\0": "x"}}, "NUL"),
        ("a", {"env": {"a": "x\0"}}, "variable a "),
    ],
)
def test_what_cannot_be_sent_is_refused(command: str, options: dict, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=said):
        command_text(command, **options)


def test_a_mark_is_made_of_a_nonce_and_a_number() -> None:
    with pytest.raises(ValueError, match="hex"):
        Mark("x; y", 1)
    with pytest.raises(ValueError, match="hex"):
        guard_text("")
    with pytest.raises(ValueError, match="from 1"):
        Mark("abc", 0)


# -- the guard --------------------------------------------------------------------------------


class Connection:
    """A guard and commands, as sshd would start them for one connection."""

    def __init__(
        self,
        shell: str = "/bin/sh",
        *,
        sh: str = "/bin/sh",
        user: int | None = None,
        first: str | None = None,
    ):
        self.nonce = secrets.token_hex(8)
        self.shell = shell
        self.user = user
        number = secrets.randbelow(10**9)
        self.env = {
            **os.environ,
            "SHELL": shell,
            "SSH_CONNECTION": f"127.0.0.1 {number} 127.0.0.2 22",
        }
        self.children: list[subprocess.Popen[bytes]] = []
        # The guard follows the first command of a connection, if there is one without a mark.
        self.first = None if first is None else self.command(0, first)
        text = guard_text(self.nonce, first=first is not None)
        self.guard = self.run(text.replace("/bin/sh", sh))
        assert self.guard.stdout is not None
        self.hello = parse_hello(self.guard.stdout.readline().decode())

    def run(
        self, text: str, env: Mapping[str, str] | None = None, terminal: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [self.shell, "-c", text],
            stdin=terminal,
            stdout=terminal,
            env=self.env if env is None else env,
            start_new_session=True,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
        )
        self.children.append(child)
        return child

    def command(
        self, number: int, text: str, *, detach: bool = False, posix: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a command that prints a line when it is ready; 0 is the first, unmarked one."""
        mark = Mark(self.nonce, number, detach) if number else None
        child = self.run(command_text(text, mark=mark, posix=posix))
        assert child.stdout is not None
        assert b"ready\n" in iter(child.stdout.readline, b"")  # csh tells of jobs before
        return child

    def order(self, *orders: str) -> None:
        assert self.guard.stdin is not None
        self.guard.stdin.write("".join(orders).encode())
        self.guard.stdin.flush()

    def bye(self) -> None:
        self.order(ORDER_BYE)
        assert self.guard.wait(LONG) == 0

    def lose(self) -> None:
        """The script dies: its guard ends what it has to, and then itself."""
        assert self.guard.stdin is not None
        self.guard.stdin.close()
        self.guard.wait(LONG)

    def close(self) -> None:
        mark = f"SSH_CONNECTION={self.env['SSH_CONNECTION']}".encode()
        for proc in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (proc / "environ").read_bytes().split(b"\0"):
                    os.kill(int(proc.name), signal.SIGKILL)
        for child in self.children:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def all_gone(child: subprocess.Popen[bytes]) -> int:
    """Wait until nothing holds the command's stdout any more: all its processes have ended."""
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        child.communicate(timeout=LONG)
    return child.returncode


def answers(child: subprocess.Popen[bytes]) -> bool:
    """A `cat` lives and gives back a line."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"hey\n")
    child.stdin.flush()
    return child.stdout.readline() == b"hey\n"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


CAT = "echo ready; cat"
NOBODY = 65534
USERS = [None, NOBODY] if os.getuid() == 0 else [None]


@pytest.fixture(params=["dash", "bash", "busybox", "no -a"])
def sh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What /bin/sh is over there, and the programs that go with it."""
    if request.param == "busybox":
        folder = request.getfixturevalue("busybox")
        monkeypatch.setenv("PATH", str(folder))
        yield str(folder / "sh")
    elif request.param == "no -a":
        # A grep that does not read beyond a NUL: a busybox that was built small.
        with tempfile.TemporaryDirectory() as small:
            os.chmod(small, 0o755)
            grep = Path(small) / "grep"
            grep.write_text('#!/bin/sh\ncase $1 in -a*) exit 1;; esac\nexec /bin/grep "$@"\n')
            grep.chmod(0o755)
            monkeypatch.setenv("PATH", f"{small}:{os.environ['PATH']}")
            yield "/bin/sh"
    else:
        found = shutil.which(request.param)
        if found is None:
            pytest.skip(f"{request.param} is missing")
        yield found


@pytest.fixture
def connection(sh: str) -> Iterator[Connection]:
    one = Connection(sh=sh)
    yield one
    one.close()


@contextlib.contextmanager
def connected(
    shell: str = "/bin/sh",
    *,
    sh: str = "/bin/sh",
    user: int | None = None,
    first: str | None = None,
) -> Iterator[Connection]:
    one = Connection(shell, sh=sh, user=user, first=first)
    try:
        yield one
    finally:
        one.close()


def first_of(connection: Connection) -> subprocess.Popen[bytes]:
    assert connection.first is not None
    return connection.first


@every_shell
def test_the_guard_greets_through_every_login_shell(shell: str) -> None:
    with connected(shell) as connection:
        name = os.path.basename(shell)
        assert connection.hello == Hello(name, posix=name in POSIX, linux=True)
        connection.bye()


def test_a_greeting_is_told_from_other_lines() -> None:
    assert parse_hello("execo-guard 1 fish other\r\n") == Hello("fish", posix=False, linux=False)
    assert parse_hello("Welcome!execo-guard 1 bash linux\n") == Hello("bash", True, True)
    assert parse_hello("execo-guard 1  linux\n") == Hello("", posix=False, linux=True)
    for line in ("", "execo-guard 2 bash linux", "execo-guard 1 bash linux or so", "bash linux"):
        assert parse_hello(line) is None


def test_the_guard_is_short() -> None:
    text = guard_text("0123456789abcdef")
    assert len(text) < 7200  # it is in there twice
    assert text.isascii()
    assert "\n" not in text


def test_an_order_names_its_signal() -> None:
    assert kill_order(7, signal.SIGTERM) == "kill TERM 7\n"
    assert kill_order(0, signal.SIGUSR1) == "kill USR1 0\n"
    assert kill_order(1, 40) == "kill 40 1\n"
    assert kill_order(3, signal.SIGTERM, runs=True) == "kill TERM 3 1\n"
    assert kill_order(3, signal.SIGTERM, group=False, runs=True) == "lead TERM 3 1\n"


TREES = {
    "one program": "echo ready; exec sleep 1000",
    "a shell that stays": "sleep 1000 & sleep 1000 & echo ready; wait; true",
    "subshells": "exec 3<&0; (while :; do read x <&3; done) & (sleep 99; true) & echo ready; wait",
    "a new session": "setsid sleep 1000 & (setsid sh -c 'sleep 99; true' &); echo ready; wait; cat",
    "a pipeline": "echo ready; sleep 1000 | cat | (read x; sleep 1000)",
    "forks in a loop": "echo ready; while :; do sleep 0.01 & sleep 0.01; done",
    "a daemon": "(trap '' HUP; setsid sleep 1000 &); echo ready; sleep 1000; true",
    "stopped": "sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$; true",
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_signal_reaches_all_of_one_command_alone(connection: Connection, tree: str) -> None:
    command = connection.command(7, tree)
    others = [connection.command(number, CAT) for number in (0, 1, 77)]
    connection.order(kill_order(7, signal.SIGTERM))
    all_gone(command)
    connection.bye()
    assert all(answers(other) for other in others)


@every_shell
def test_a_command_of_every_login_shell_is_found(shell: str) -> None:
    with connected(shell) as connection:
        command = connection.command(3, "sleep 1000 | cat & echo ready; sleep 1000", posix=False)
        connection.order(kill_order(3, signal.SIGTERM))
        all_gone(command)
        connection.bye()


def test_a_command_is_found_while_its_login_shell_starts(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    # As one whose start files take their time: it has not read the command yet.
    slow.write_text(
        '#!/bin/sh\n[ $0 ] && case $2 in *guard*) exec /bin/sh -c "$2";; esac\n'
        "echo ready; sleep 1000; true\n"
    )
    slow.chmod(0o755)
    for posix in (True, False):
        with connected(str(slow)) as connection:
            command = connection.command(3, "true", posix=posix)
            connection.order(kill_order(3, signal.SIGKILL))
            assert command.wait(LONG) == -signal.SIGKILL
            connection.bye()


def test_kill_ends_what_forks_and_ignores(connection: Connection) -> None:
    stubborn = (
        "trap '' TERM HUP INT; echo ready; while :; do (sleep 0.05; sleep 0.05) & sleep 0.05; done"
    )
    command = connection.command(2, stubborn)
    connection.order(kill_order(2, signal.SIGTERM), kill_order(2, signal.SIGKILL))
    assert all_gone(command) == -signal.SIGKILL


def test_a_signal_comes_once_and_a_handler_may_clean_up(connection: Connection) -> None:
    text = (
        "trap 'echo one; sleep 0.3; echo clean; exit 5' TERM; echo ready; while :; do read x; done"
    )
    command = connection.command(2, text)
    connection.order(kill_order(2, signal.SIGTERM))
    assert command.stdout is not None
    assert command.stdout.read() == b"one\nclean\n"
    assert command.wait(LONG) == 5


AGAIN = 'exec "$SHELL" -c "$0" "$0"'


def exec_for_ever(connection: Connection, number: int) -> subprocess.Popen[bytes]:
    """A command that does nothing but become itself again."""
    mark = f"{Mark(connection.nonce, number).export} "
    child = connection.run(f"{mark}echo ready; exec /bin/sh -c '{AGAIN}' '{AGAIN}'")
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_finds_what_is_becoming_another_program(number: signal.Signals) -> None:
    # For a moment of each exec it has no environment, and about one look of ten is in it.
    with connected() as connection:
        for command in range(1, 41):
            child = exec_for_ever(connection, command)
            connection.order(kill_order(command, number, runs=True))
            assert child.wait(LONG) == -number
        connection.bye()


@pytest.mark.parametrize("misses", [1, 2])
@pytest.mark.parametrize("what", [0, 1])
def test_a_signal_for_what_runs_is_not_given_up_at_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: int, misses: int
) -> None:
    """As if the command were in an exec at each of the first looks."""
    (tmp_path / "misses").write_text("x\n" * misses)
    grep = tmp_path / "grep"
    grep.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *environ*) cd {tmp_path}; '
        'if [ -s misses ]; then sed -i 1d misses; exit 1; fi; cd "$OLDPWD";; esac\n'
        'exec /bin/grep "$@"\n'
    )
    grep.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with connected(first=CAT if what == 0 else None) as connection:
        command = connection.first if what == 0 else connection.command(what, CAT)
        assert command is not None
        connection.order(kill_order(what, signal.SIGTERM, runs=True))
        assert command.wait(LONG) == -signal.SIGTERM
        connection.bye()


def test_a_signal_for_what_is_not_there_holds_up_nothing(connection: Connection) -> None:
    command = connection.command(2, CAT)
    orders = [kill_order(number, signal.SIGTERM, runs=True) for number in (7, 8, 9, 2)]
    connection.order(*orders)
    assert command.wait(LONG) == -signal.SIGTERM
    connection.bye()


def test_a_small_grep_is_not_started_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a host with many of them an order took half a minute."""
    grep = tmp_path / "grep"
    grep.write_text(
        f'#!/bin/sh\necho >>{tmp_path}/calls\ncase $1 in -a*) exit 1;; esac\nexec /bin/grep "$@"\n'
    )
    grep.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with connected() as connection:
        command = connection.command(1, CAT)
        connection.order(kill_order(1, signal.SIGTERM, runs=True))
        assert command.wait(LONG) == -signal.SIGTERM
        connection.bye()
    # Two for each look, of which there are some.
    assert len((tmp_path / "calls").read_text()) < 20


def test_what_the_server_has_yet_to_start_gets_its_signal(tmp_path: Path) -> None:
    """The server says that a command runs when it has forked, and becomes its shell later."""
    (tmp_path / "gate").mkdir()
    server = """
import os, sys, time
guard, command, gate = sys.argv[1:]
first = os.fork()
if not first:
    os.setsid()
    os.open("/dev/null", os.O_RDONLY)
    while not os.path.exists(gate + "/open"):
        time.sleep(0.01)
    os.execv("/bin/sh", ["sh", "-c", command])
pid = os.fork()
if not pid:
    os.setsid()
    os.execv("/bin/sh", ["sh", "-c", guard])
print(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]), flush=True)
os.waitpid(pid, 0)
"""
    nonce = secrets.token_hex(8)
    command = command_text("sleep 1000; true", mark=Mark(nonce, 1), posix=True)
    words = [sys.executable, "-c", server, guard_text(nonce, first=False), command]
    with subprocess.Popen(
        [*words, str(tmp_path / "gate")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert parse_hello(child.stdout.readline().decode())
        child.stdin.write(kill_order(1, signal.SIGTERM, runs=True).encode())
        child.stdin.flush()
        threading.Event().wait(0.3)  # it has looked in vain by then, and looks for a second more
        (tmp_path / "gate" / "open").touch()
        assert child.stdout.readline() == b"-15\n"
        child.stdin.write(ORDER_BYE.encode())


def test_other_signals_do_not_wake_what_is_stopped(connection: Connection) -> None:
    command = connection.command(2, "trap 'echo usr1' USR1; echo ready; while :; do read x; done")
    connection.order(kill_order(2, signal.SIGSTOP), kill_order(2, signal.SIGUSR1))
    os.waitid(os.P_PID, command.pid, os.WSTOPPED | os.WNOWAIT)
    connection.order(kill_order(2, signal.SIGCONT))
    assert command.stdout is not None
    assert command.stdout.readline() == b"usr1\n"


def test_the_first_command_has_no_mark(sh: str) -> None:
    text = "sleep 1000 & setsid sleep 1000 & echo ready; wait; true"
    with connected(sh=sh, first=text) as connection, connected(first=CAT) as stranger:
        other = connection.command(1, CAT)
        connection.order(kill_order(0, signal.SIGTERM))
        all_gone(first_of(connection))
        connection.bye()
        assert answers(other)
        assert answers(first_of(stranger))
        assert stranger.guard.poll() is None


def test_after_its_end_nothing_unmarked_is_touched(sh: str) -> None:
    with connected(sh=sh, first=CAT) as connection:
        connection.order(ORDER_END_FIRST, kill_order(0, signal.SIGKILL))
        connection.lose()
        assert answers(first_of(connection))


@pytest.mark.parametrize("server", ["trap '' HUP; sleep 1000 >/dev/null &", "setsid sleep 1000 &"])
def test_what_the_first_command_left_stays_if_nobody_could_tell_of_its_end(
    sh: str, server: str
) -> None:
    # A server's process for a connection has no other children; the process of the tests has.
    source = f"import {__name__} as here; here.leave_and_lose({sh!r}, {server!r})"
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONG,
    )
    assert done.returncode == 0, done.stderr


def leave_and_lose(sh: str, server: str) -> None:
    with connected(sh=sh, first=f"echo ready; {server} echo $!; read x") as connection:
        first = first_of(connection)
        assert first.stdout is not None
        pid = int(first.stdout.readline())
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait(LONG) == 1
        connection.lose()
        assert alive(pid)


def test_a_lost_client_takes_what_has_not_ended_along(sh: str) -> None:
    stubborn = "trap '' TERM HUP INT; (setsid sleep 1000 &); echo ready; while :; do read x; done"
    with connected(sh=sh, first=f"trap '' HUP; sleep 1000 & {CAT}") as connection:
        lost = [first_of(connection), connection.command(1, CAT), connection.command(3, stubborn)]
        lost += [connection.command(4, tree) for tree in TREES.values()]
        detached = connection.command(2, CAT, detach=True)
        connection.order(kill_order(9, signal.SIGTERM))  # which has ended
        connection.lose()
        for command in lost:
            all_gone(command)
        assert answers(detached)


@pytest.mark.parametrize(
    "server",
    [
        "trap '' HUP; sleep 1000 >/dev/null &",
        "exec 3<&0; (read x <&3; true) &",
        "setsid sleep 1000 &",
    ],
)
def test_what_an_ended_command_left_behind_stays(connection: Connection, server: str) -> None:
    ended = connection.command(5, f"echo ready; {server} echo $!")
    assert ended.stdout is not None
    pid = int(ended.stdout.readline())
    assert ended.wait(LONG) == 0
    running = connection.command(6, CAT)
    connection.lose()
    all_gone(running)
    assert alive(pid)


def test_bye_touches_nothing(sh: str) -> None:
    with connected(sh=sh, first=CAT) as connection:
        commands = [first_of(connection), *(connection.command(number, CAT) for number in (1, 2))]
        connection.bye()
        assert all(answers(command) for command in commands)


def test_the_guard_outlives_the_signals_of_its_session(connection: Connection) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE):
        os.killpg(connection.guard.pid, number)
    command = connection.command(1, CAT)
    connection.order(kill_order(1, signal.SIGTERM))
    all_gone(command)
    connection.bye()


@pytest.mark.parametrize("user", USERS)
def test_a_user_needs_no_rights(user: int | None) -> None:
    with connected(user=user, first=CAT) as connection, connected() as root:
        theirs = root.command(1, CAT)
        command = connection.command(1, TREES["a new session"])
        connection.order(kill_order(1, signal.SIGTERM))
        all_gone(command)
        left = connection.command(2, TREES["a shell that stays"])
        connection.lose()
        all_gone(left)
        all_gone(first_of(connection))
        assert answers(theirs)


def test_a_client_on_the_same_host_is_not_its_command() -> None:
    with connected() as connection:
        # `ssh localhost TEXT` has the text in its arguments too.
        text = command_text("true", mark=Mark(connection.nonce, 1), posix=True)
        client = connection.run(
            join(["env", "-u", "SSH_CONNECTION", "sh", "-c", "cat", "ssh", "-x", "localhost", text])
        )
        connection.order(kill_order(1, signal.SIGKILL), kill_order(1, signal.SIGTERM))
        connection.lose()
        assert answers(client)


def test_text_from_other_processes_is_only_compared(connection: Connection, tmp_path: Path) -> None:
    nonce = connection.nonce
    victim = connection.command(2, CAT)
    ran = tmp_path / "ran"
    bait = {
        "A": f"\n{victim.pid}/environ:EXECO_MARK={nonce}.1.1\n$(touch {ran})`touch {ran}`",
        "EXECO_MARK": f"{nonce}.8.$(touch {ran})*; touch {ran}",
        "SSH_CONNECTION": "none",
    }
    hostile = connection.run("echo ready; exec cat", {**connection.env, **bait})
    assert hostile.stdout is not None
    assert hostile.stdout.readline() == b"ready\n"
    connection.order(*(kill_order(number, signal.SIGTERM) for number in (0, 1, 3, 8)))
    connection.bye()
    assert answers(victim)
    assert not ran.exists()


def test_a_command_on_a_terminal_ends_with_its_client(connection: Connection) -> None:
    ours, theirs = pty.openpty()
    text = command_text(
        "trap '' HUP; sleep 1000 & sleep 1000; true", mark=Mark(connection.nonce, 1)
    )
    child = connection.run(text, terminal=theirs)
    os.close(theirs)
    try:
        connection.lose()
        child.wait(LONG)
    finally:
        os.close(ours)


def test_blanks_in_a_hello_take_no_time() -> None:
    # It is read on the I/O thread: a host could have held up all others.
    with cheap():
        for _ in range(3):
            said = "execo-guard 1 " * 2500 + " linux" * 2500 + " " * 20_000
            assert parse_hello(f"{said}x") is None
            assert parse_hello(said) is not None
