"""TaktukPut and TaktukGet are Put and Get by another way, and their tests run here once more.

Hosts are folders of this machine there; here taktuk reaches these folders with a connector of ours.
Those of the real servers run with a real one.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import ModuleType

import pytest

import execo
import test_transfer
import test_transfer_bad_input
import test_transfer_hostile
import test_transfer_ssh
from execo.errors import Reason
from execo.transfer import supply
from execo.transfer.one_line import Decoder, one_line
from execo.transfer.taktuk import TaktukGet, TaktukGetProcess, TaktukPut, TaktukPutProcess
from execo.transports.taktuk_run import TaktukRun
from local_hosts import SHELLS, FolderHosts
from remote_commands import until

# With the fixtures of this module.
from test_transfer import (  # noqa: F401
    NAMES,
    test_a_destination_that_is_no_regular_file_is_written_to,
    test_a_name_that_is_not_unicode,
    test_as_other_actions,
    test_every_shell,
    test_folders_are_merged_and_files_replaced,
    test_folders_that_may_not_be_written,
    test_links_are_followed,
    test_one_file_there_and_back,
    test_one_file_to_a_name_a_folder_or_a_slash,
    test_reset_finds_the_local_files_anew,
    test_several_files_and_folders_go_into_the_folder,
    test_sockets_and_pipes_are_left_out_and_said,
    test_substitutions,
    test_tilde_and_patterns_are_expanded,
    test_what_has_no_size,
    test_what_the_login_shell_prints_is_skipped,
)
from test_transfer_bad_input import (  # noqa: F401
    test_a_folder_is_in_the_way_or_a_file,
    test_a_full_device,
    test_a_local_file_that_changes_while_it_is_sent,
    test_a_missing_local_file_is_an_error_of_its_process,
    test_a_missing_remote_file,
    test_a_name_from_the_host_that_leads_elsewhere,
    test_arguments_that_cannot_be_right,
    test_little_waits_in_memory,
    test_names_that_would_overwrite_one_another,
    test_no_room_here,
    test_no_room_there,
    test_sizes_are_verified,
    test_the_cause_among_what_tar_says,
    test_what_is_killed_leaves_nothing,
)
from test_transfer_hostile import (  # noqa: F401
    test_a_file_without_size_that_is_cut,
    test_a_host_that_is_slow_when_a_local_file_fails,
    test_a_pattern_with_many_matches,
    test_a_pipe_that_nobody_reads_holds_up_nobody,
    test_a_second_signal_while_it_tidies,
    test_a_stream_without_end,
    test_a_timeout_removes_the_local_file_at_once,
    test_an_archive_that_is_cut_or_damaged,
    test_killed_or_late_while_it_unpacks,
    test_tar_crashes,
    test_what_is_killed_ends_with_its_script,
    test_what_was_sent_is_not_kept,
)
from test_transfer_ssh import (  # noqa: F401
    here,
    test_a_connection_that_is_lost,
    test_a_host_that_cannot_be_reached,
    test_many_hosts,
    test_there_and_back,
    test_what_an_ordinary_user_may_not_do,
    test_what_is_killed_or_late_leaves_nothing,
)

pytest_plugins = ["local_hosts", "sshd"]

if shutil.which("taktuk") is None:
    pytest.skip("needs taktuk, see tests/install-servers", allow_module_level=True)

MODULES: list[ModuleType] = [
    test_transfer,
    test_transfer_bad_input,
    test_transfer_hostile,
    test_transfer_ssh,
]
MIB = 1 << 20

# What taktuk takes for ssh. The host's folder is the home there; the first part of its name says
# which shell it has.
CONNECTOR = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
host=$2
shift 2
export HOME="ROOT/$host" SHELL=/bin/sh PATH="ROOT/bin.${host%%-*}:$PATH"
case $host in busybox*) PATH=ROOT/bin.busybox:ROOT/busybox.bin;; esac
cd || exit
exec /bin/sh -c "$*"
"""


@pytest.fixture(autouse=True)
def by_taktuk(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES:
        monkeypatch.setattr(module, "Put", TaktukPut)
        monkeypatch.setattr(module, "Get", TaktukGet)


@pytest.fixture
def params() -> dict[str, str]:
    """Of the tests with real servers: nothing is needed."""
    return {}


@pytest.fixture
def hosts(hosts: FolderHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHosts:
    root = tmp_path / "hosts"
    for kind, words in SHELLS.items():
        folder = root / f"bin.{kind}"
        folder.mkdir()
        for name, program in (("sh", words[0]), ("perl", "perl")):
            (folder / name).symlink_to(shutil.which(program) or "missing")
    connector = tmp_path / "connector"
    connector.write_text(CONNECTOR.replace("ROOT", str(root)))
    connector.chmod(0o755)
    params = execo.config.default_connection_params
    monkeypatch.setitem(params, "taktuk_connector", str(connector))
    return hosts


def names(count: int) -> list[str]:
    return [f"web{number}" for number in range(1, count + 1)]


def test_they_are_a_put_and_a_get(hosts: FolderHosts) -> None:
    Path("f").write_text("x")
    put = TaktukPut(hosts("web1"), "f", "g").run(check=True)
    get = TaktukGet(hosts("web1"), "g", "back").run(check=True)
    assert isinstance(put, execo.Put)
    assert isinstance(get, execo.Get)
    assert [type(one.processes[0]) for one in (put, get)] == [TaktukPutProcess, TaktukGetProcess]
    assert repr(get) == "<TaktukGet 'get g to back': ended, 1 processes>"


def test_scp_has_no_effect(hosts: FolderHosts) -> None:
    Path("f").write_text("x")
    params = {"scp": "false", "scp_options": ("-C",)}
    TaktukPut(hosts("web1"), "f", "g", params).run(check=True)
    TaktukGet(hosts("web1"), "g", "back", params).run(check=True)
    assert Path("back").read_text() == "x"


# -- one for all ----------------------------------------------------------------------------------


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each piece was that a local taktuk was told."""
    sizes: list[int] = []
    real = TaktukRun._write

    def write(run: TaktukRun, data: bytes) -> None:
        sizes.append(len(data))
        real(run, data)

    monkeypatch.setattr(TaktukRun, "_write", write)
    return sizes


@pytest.mark.parametrize("size", [100_000, 5 * MIB])
def test_taktuk_is_given_a_file_once_for_all_hosts(
    hosts: FolderHosts, written: list[int], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine some are held up for longer than that, and get the rest by themselves.
    monkeypatch.setattr(supply, "LATE", 100.0)
    data = os.urandom(size)
    Path("f").write_bytes(data)
    TaktukPut(hosts(*names(10)), "f").run(check=True)
    assert all((hosts.home(name) / "f").read_bytes() == data for name in names(10))
    assert sum(written) < 1.1 * size


def test_hosts_that_receive_files_of_their_own(hosts: FolderHosts) -> None:
    for name in names(4):
        Path(name).write_bytes(name.encode() * 200_000)
    Path("all").write_bytes(b"x" * 900_000)
    TaktukPut(hosts(*names(4)), ["{{{host}}}", "all"], "to/").run(check=True)
    TaktukPut(hosts(*names(4)), "{{['web1', 'web2']}}", "same").run(check=True)
    for index, name in enumerate(names(4)):
        home = hosts.home(name)
        assert (home / "to" / name).read_bytes() == name.encode() * 200_000
        assert (home / "to/all").stat().st_size == 900_000
        assert (home / "same").read_bytes() == [b"web1", b"web2"][index % 2] * 200_000


def test_any_name(hosts: FolderHosts) -> None:
    many = hosts(*names(len(NAMES)))
    for name in NAMES:
        Path(name).write_text(name)
    TaktukPut(many, "{{NAMES}}", "{{NAMES}} folder/{{NAMES}}").run(check=True)
    TaktukGet(many, "{{NAMES}} folder", "back/{{{host}}}").run(check=True)
    for host, name in zip(many, NAMES, strict=True):
        assert Path("back", host.address, f"{name} folder", name).read_text() == name


def test_one_that_fails_on_the_way_drops_out(hosts: FolderHosts) -> None:
    Path("f").write_bytes(os.urandom(20 * MIB))
    many = hosts(*names(4))
    put = TaktukPut(many, "f", "{{['/dev/full', 'f', 'f', 'f']}}").run()
    assert [process.ok for process in put.processes] == [False, True, True, True]
    assert put.processes[0].message.endswith("No space left on device")
    assert all((hosts.home(name) / "f").stat().st_size == 20 * MIB for name in names(4)[1:])


def test_one_that_is_killed_on_the_way_drops_out(hosts: FolderHosts) -> None:
    Path("f").write_bytes(os.urandom(20 * MIB))
    os.mkfifo(hosts.home("web2") / "pipe")  # nobody will ever read it
    put = TaktukPut(hosts(*names(3)), "f", "{{['f', 'pipe', 'f']}}").start()
    until(lambda: all(process.start_date is not None for process in put.processes))
    put.processes[1].kill()
    put.wait()
    assert [process.exit_code for process in put.processes] == [0, -signal.SIGTERM, 0]
    assert put.processes[1].killed
    assert (hosts.home("web3") / "f").stat().st_size == 20 * MIB


def test_one_that_is_late_is_ended_alone(hosts: FolderHosts) -> None:
    Path("f").write_text("x")
    os.mkfifo(hosts.home("web1") / "f")  # nobody will ever read it
    put = TaktukPut(hosts("web1", "web2"), "f", process_args={"timeout": 5}).run()
    late, good = put.processes
    assert good.ok
    assert late.reason is Reason.TIMEOUT
    assert late.message == "cannot put 'f' on web1: reached its timeout of 5 s"


def test_one_that_hangs_holds_up_nobody(
    hosts: FolderHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "LATE", 0.3)
    Path("f").touch()
    os.truncate("f", 1 << 27)
    put = TaktukPut(hosts(*names(4)), "f").start()
    first, *others = put.processes
    until(lambda: any(path.stat().st_size for path in hosts.home("web1").glob(".execo-*")))
    taktuk = [pid for pid in running_in(hosts.home("web1")) if is_taktuk(pid)]
    for pid in taktuk:
        os.kill(pid, signal.SIGSTOP)
    try:
        for process in others:
            assert process.wait(60).ok
        assert first.running
    finally:
        for pid in taktuk:
            os.kill(pid, signal.SIGCONT)
    put.wait(check=True)
    assert (hosts.home("web1") / "f").stat().st_size == 1 << 27


def running_in(home: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"HOME=" + os.fsencode(home) in variables:
            found.append(int(process.name))
    return found


def is_taktuk(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"perl\0--\0-\0")
    except OSError:
        return False


def test_hosts_that_cannot_be_reached_hold_up_nobody(hosts: FolderHosts) -> None:
    Path("f").write_bytes(b"x" * MIB)
    many = [execo.Host("none1"), *hosts("web1", "web2"), execo.Host("none2")]
    put = TaktukPut(many, "f").run()
    assert [process.ok for process in put.processes] == [False, True, True, False]
    for process in (put.processes[0], put.processes[3]):
        assert process.reason is Reason.CONNECT
        assert f"cannot connect to {process.host.address}" in process.message  # type: ignore[attr-defined]


# -- what taktuk does to lines --------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"\n" * 3 * MIB, b"a line\r\n" * 300_000, b"\\n\\" * MIB, bytes(range(256)) * 5000, b"\\\n"],
    ids=["empty lines", "lines", "backslashes", "all bytes", "two"],
)
def test_any_bytes_come_as_they_are(hosts: FolderHosts, data: bytes) -> None:
    for name in ("web1", "web2"):
        (hosts.home(name) / "f").write_bytes(data)
    TaktukGet(hosts("web1", "web2"), "f", "{{{host}}}/").run(check=True)
    TaktukGet(hosts("web1"), ["f", "."], "all").run(check=True)
    for name in ("web1", "web2", "all"):
        assert Path(name, "f").read_bytes() == data


def test_a_line_is_decoded_wherever_it_is_cut() -> None:
    data = b"\\\n\\n\\\\\n\nend\\"
    line = execo.Process(one_line(("printf", "%b", r"\\\n\\n\\\\\n\nend\\"))).run().stdout_bytes
    assert line.count(b"\n") == 2
    whole = b"a greeting\nexeco-" + line + b"a farewell\n"
    for first in range(len(whole) + 1):
        for second in (first, first + 1, len(whole)):
            decoder = Decoder()
            pieces = whole[:first], whole[first:second], whole[second:]
            come = b"".join(decoder.decode(piece) for piece in pieces)
            assert come == b"a greeting\nexeco-" + data


@pytest.mark.parametrize(
    ("script", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("echo words >&2; exit 1", 1)]
)
def test_the_end_of_a_script_is_its_own(script: str, code: int) -> None:
    words = one_line(("sh", "-c", script))
    assert execo.Process(words, nolog_exit_code=True).run().exit_code == code


def test_a_signal_reaches_the_script(hosts: FolderHosts) -> None:
    def scripts() -> list[int]:
        return [pid for pid in running_in(hosts.home("web1")) if is_script(pid)]

    os.mkfifo(hosts.home("web1") / "f")  # nobody will ever write to it
    get = TaktukGet(hosts("web1"), "f", "got/").start()
    until(lambda: bool(scripts()))
    get.kill().wait()
    assert get.processes[0].killed
    until(lambda: not scripts())


def is_script(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sh\0-c\0LC_ALL=C")
    except OSError:
        return False
