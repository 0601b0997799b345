"""What hosts, programs and agents say, damaged, in pieces of any size: an answer, or an error of
ours. Hosts are not trusted: no crash, no hang, nothing outside of the place that was asked for.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import stat
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from execo import Process, Remote, SshProcess
from execo.becoming.dialogue import Dialogue, Said
from execo.becoming.texts import Marks
from execo.errors import Reason
from execo.taktuk import TaktukRemote
from execo.transfer.one_line import Decoder
from execo.transfer.receive import Incoming
from execo.transfer.rsync_relay import _read_header
from execo.transfer.texts import TRAILER
from execo.transports.base import Become, Target
from execo.transports.key_files import LoginProblem, PublicKey
from execo.transports.remote_shell import Hello, parse_hello
from execo.transports.ssh_agent import ask_signature, list_keys
from execo.transports.ssh_messages import (
    SSH_FAILED,
    MasterEvent,
    diagnose,
    failure,
    read_event,
    read_log,
)
from execo.transports.taktuk_frames import FrameParser, StateChange
from fuzzing import cheap, damaged, examples, no_internal_error, pieces
from invariants import PATIENCE, Watch

CUTS = st.lists(st.integers(1, 40), max_size=6)
QUIET: dict[str, Any] = {"nolog_error": True, "nolog_exit_code": True, "nolog_timeout": True}


# -- taktuk ---------------------------------------------------------------------------------------


def frame(kind: bytes, payload: bytes, position: bytes = b"1", pid: bytes = b"7") -> bytes:
    return b"\x01%b %b %b %d\n%b\n" % (kind, position, pid, len(payload), payload)


FRAMES = [
    frame(b"S", b"4|-1|1|", b"0"),
    frame(b"S", b"1|1||"),
    frame(b"S", b"6|1||"),
    frame(b"O", b"hello\n"),
    frame(b"E", b"error\xff\0\n"),
    frame(b"C", b"1 Permission denied", b"0"),
    frame(b"X", b"768"),
    frame(b"S", b"5|0|1|web1:1 ::1:4.1 ", b"0"),
    frame(b"S", b"3|0|1|", b"0"),
    frame(b"S", b"7|1||"),
    frame(b"S", b"19|1||"),
    frame(b"S", b"0|0||", b"0"),
    frame(b"T", b"taktuk: something"),
]
OF_FRAMES = [
    b"\x01",
    b"\x01O 1 7 999999999\n",
    b"\x01S",
    b"|",
    b"999|",
    b"-1",
    b"4294967296",
    b"1.1",
]
OF_FRAMES += [b"\x01O " + b"1." * 5000, b"\x01X 1 7 5000\n" + b"7" * 5000 + b"\n"]
STREAMS = st.lists(st.sampled_from(FRAMES), max_size=12).map(b"".join)


@examples(200)
@given(damaged(STREAMS, OF_FRAMES), CUTS)
@example(b"\x01O " + b"1." * 100_000, [100])
@example(b"\x01" * 100_000, [100])
def test_frames_of_taktuk(data: bytes, cuts: list[int]) -> None:
    parser, whole = FrameParser(), FrameParser()
    with cheap():
        found = [one for piece in pieces(data, cuts) for one in parser.feed(piece)]
    assert sum(len(one.payload) for one in found) <= len(data)
    assert sum(map(len, parser.noise)) <= len(data)
    assert found == list(whole.feed(data))
    for one in found:
        change = StateChange.parse(one.payload)
        assert change is None or isinstance(change.rank, int)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@examples(20)
@given(damaged(STREAMS, OF_FRAMES), st.integers(0, 3))
def test_a_taktuk_that_says_anything(tmp_path: Path, data: bytes, code: int) -> None:
    (tmp_path / "said").write_bytes(data)
    taktuk = program(tmp_path / "taktuk", f"cat {tmp_path}/said; exit {code}")
    with no_internal_error():
        action = TaktukRemote("true", ["a", "b"], {"taktuk": taktuk}, process_args=QUIET)
        action.run(PATIENCE)
    for process in action.processes:
        assert process.ended
        assert process.ok or process.reason is not None


# -- ssh ------------------------------------------------------------------------------------------

LOG = [
    "ssh: connect to host web1 port 22: Connection refused",
    "kex_exchange_identification: read: Connection reset by peer",
    "me@web1: Permission denied (publickey,password).",
    "Load key \"/k\": invalid format",
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
    "Host key verification failed.",
    "debug1: mux.c:muxserver_listen():1 (pid=7): mux listener channel 0 [/s]",
    "clientloop.c:client_session2_setup():2 (pid=7): id 3",
    "clientloop.c:client_session2_setup():2 (pid=7): Sending command: true",
    "clientloop.c:client_status_confirm():3 (pid=7): exec request accepted on channel 3",
    "clientloop.c:client_input_channel_req():4 (pid=7): client_input_channel_req: channel 3 rtype exit-status reply 0",  # noqa: E501
    "channels.c:channel_input_open_failure():5 (pid=7): channel 3: open failed: connect failed: ",
    "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
    "ControlSocket /s already exists, disabling multiplexing",
    "Unable to negotiate with ::1 port 22: no matching cipher found. Their offer: x",
]  # fmt: skip
OF_LOG = ["Connection to ", "no matching ", " found", "closed", "exit-signal", "{host}", "{", "%s"]
OF_LOG += ["Connection to " * 300, "no matching " * 300, "host key " * 300, "Bad " * 500]
LINES = damaged(st.lists(st.sampled_from(LOG), max_size=6).map("\n".join), OF_LOG)
TARGET = Target("10.0.0.1", "me", 22, "/no/such/key", name="we{b}1")


@examples(200)
@given(LINES, LINES, st.sampled_from([SSH_FAILED, 0, 256, 9, 40, 139, None]), st.booleans())
@example("Connection to " * 3000, "", SSH_FAILED, False)
@example("no matching " * 3000, "Bad " * 9000, SSH_FAILED, True)
def test_messages_of_ssh(text: str, tail: str, status: int | None, follows: bool) -> None:
    with cheap():
        log = read_log(text)
        error = failure(TARGET, status, log, tail.split("\n"), follows=follows)
        for line in text.split("\n"):
            event = read_event(line)
            assert event is None or isinstance(event[0], MasterEvent)
        diagnose(log.messages, "{0}")
    if error is not None:
        assert error.reason in Reason
        assert error.host == "10.0.0.1"


@examples(20)
@given(LINES, LINES, st.sampled_from([255, 0, 3]), st.booleans())
def test_an_ssh_that_says_anything(
    tmp_path: Path, log: str, said: str, code: int, shared: bool
) -> None:
    (tmp_path / "log").write_bytes(log.encode("utf-8", "surrogateescape"))
    (tmp_path / "said").write_bytes(said.encode("utf-8", "surrogateescape"))
    ssh = program(
        tmp_path / ("ssh" if shared else "my-ssh"),
        'while [ $# -gt 0 ]; do [ "$1" = -V ] && exit 0; [ "$1" = -E ] && l=$2; shift; done\n'
        f'[ "$l" ] && cat {tmp_path}/log >"$l"; cat {tmp_path}/said; cat {tmp_path}/said >&2\n'
        f"exit {code}",
    )
    with no_internal_error():
        params = {"transport": "openssh", "ssh": ssh, "connect_timeout": 2}
        action = Remote("true", ["web1", "web2"], params, process_args=QUIET).run(PATIENCE)
    for process in action.processes:
        assert process.ended
        assert process.ok or process.reason is not None


# -- guards and other users -----------------------------------------------------------------------


@examples(100)
@given(damaged(st.just("Welcome\nexeco-guard 1 bash linux\r\n"), ["execo-guard 1 ", " linux"]))
def test_what_a_guard_says(text: str) -> None:
    with cheap():
        for line in text.split("\n"):
            hello = parse_hello(line)
            assert hello is None or isinstance(hello, Hello)


MARKS = Marks("ab12")
HELLO = {True: b"execo-ab12-hello-me.", False: b"execo-ab12-hello-a."}
PROMPTS = {"sudo": MARKS.prompt.encode(), "su": b"Password: ", "doas": b"doas (me@web1) password: "}
OF_DIALOGUE = [b"execo-ab12-hello-", b"execo-ab12-begun.", b"Password:", MARKS.prompt.encode()]
OF_DIALOGUE += [b"execo-ab13-hello-a.", b"sudo: no tty present", b" " * 300, b"doas ("]


@st.composite
def transcripts(draw: st.DrawFn) -> tuple[str, list[tuple[int, bytes]]]:
    method = draw(st.sampled_from(sorted(PROMPTS)))
    merged = draw(st.booleans())
    out = b"motd\n" + HELLO[merged] + PROMPTS[method] + b"\n" + b"execo-ab12-begun.output"
    err = b"" if merged else b"motd\n" + HELLO[merged] + b"execo-ab12-begun.errors"
    said = [
        (stream, piece)
        for stream, data in ((1, out), (2, err))
        for piece in pieces(draw(damaged(st.just(data), OF_DIALOGUE)), draw(CUTS))
    ]
    if draw(st.booleans()):
        said = draw(st.permutations(said))
    return method, said


@examples(200)
@example(("sudo", [(1, b"\nexeco-ab12-hello-a.execo-ab12-password:")]))
@given(transcripts())
def test_the_dialogue_with_sudo_su_and_doas(
    transcript: tuple[str, list[tuple[int, bytes]]],
) -> None:
    method, said = transcript
    one = Dialogue(Become("root", method, "secret"), MARKS)
    heard: list[Said] = []
    with cheap():
        for stream, data in said:
            for event in one.take(stream, data):
                heard.append(event)
                if event is Said.PROMPT:
                    one.answered()
        for stream in (1, 2):
            heard += one.close(stream)
        words = one.words
    assert "\n" not in words
    for event in (Said.HELLO, Said.BEGUN):
        assert heard.count(event) <= 1
    # A password goes to what asks between the two, and to nobody else.
    if Said.PROMPT in heard:
        assert heard[0] is Said.HELLO
    if Said.BEGUN in heard:
        assert Said.PROMPT not in heard[heard.index(Said.BEGUN) :]
    kept = sum(len(data) for part in (one.early, one.rest) for data in part.values())
    assert kept <= sum(len(data) for _, data in said)


# -- transfers ------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=more.pop("form", tarfile.PAX_FORMAT)) as tar:
        one = tarfile.TarInfo(name)
        one.type, one.size, one.mode = kind, len(data), 0o644
        for key, value in more.items():
            setattr(one, key, value)
        tar.addfile(one, io.BytesIO(data))
    return out.getvalue()


MEMBERS = [
    member("f", data=b"data"),
    member("d", tarfile.DIRTYPE, mode=0o755),
    member("d/f", data=b"x" * 1000),
    member("é" * 120, data=b"long"),
    member("g" * 200, data=b"long", form=tarfile.GNU_FORMAT),
    member("suid", data=b"x", mode=0o6777),
    member("../canary", data=b"up"),
    member("/canary", data=b"root"),
    member("link", tarfile.SYMTYPE, linkname="/etc/passwd"),
    member("link/canary", data=b"through"),
    member("hard", tarfile.LNKTYPE, linkname="f"),
    member("hard2", tarfile.LNKTYPE, linkname="../canary"),
    member("dev", tarfile.CHRTYPE, devmajor=1, devminor=3),
    member("fifo", tarfile.FIFOTYPE),
    member("attributes", data=b"x", pax_headers={"mtime": "1.5", "comment": "c"}),
]
ARCHIVES = st.lists(st.sampled_from(MEMBERS), min_size=1, max_size=5).map(
    lambda members: b"motd\nexeco-get tar\n" + b"".join(members) + TRAILER
)
FILES = st.sampled_from(
    [
        b"execo-get file 4 644 1700000000\nname\0data",
        b"motd\nexeco-get file - 755 1700000000.5\nname\0data" + TRAILER,
        b"execo-get file 0 0 -1\nname\0",
    ]
)
OF_STREAMS = [
    TRAILER,
    b"execo-get ",
    b"file ",
    b"tar\n",
    b"\0",
    b"../",
    b"/",
    b"0" * 512,
    bytes(512),
]
OF_STREAMS += [
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"77777777777\0",
    b"20 mtime=inf\n",
    b"L",
    b"S",
]


@examples(200)
@given(damaged(ARCHIVES | FILES, OF_STREAMS), CUTS, st.sampled_from(["to/", "to/name"]))
def test_what_hosts_send_for_files(
    tmp_path: Path, data: bytes, cuts: list[int], location: str
) -> None:
    shutil.rmtree(tmp_path)
    (tmp_path / "in" / "to").mkdir(parents=True)
    incoming = Incoming(f"{tmp_path}/in/{location}", lambda _: lambda: None)
    with cheap():
        try:
            for piece in pieces(data, [one * 50 for one in cuts]):
                incoming.write(piece)
            incoming.finish()
        except (OSError, ValueError) as exc:
            assert str(exc)
        finally:
            incoming.close()
    assert not Path("/canary").exists()
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == ["to"]
    for path in (tmp_path / "in").rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert not mode & 0o7000
        assert not path.name.startswith(".execo-")


@examples(100)
@example(b"execo-rsync 92233720368547758082\n3 a\0- d\0")
@given(
    damaged(
        st.sampled_from([b"motd\nexeco-rsync 2\n3 a\0- d\0", b"execo-rsync 0\n"]),
        [b"execo-rsync ", b"\0", b"- ", b"999999999999", b"\n"],
    )
)
def test_what_hosts_find_for_rsync(data: bytes) -> None:
    with cheap():
        try:
            found = _read_header(data)
        except ValueError:
            return
    assert found is None or all(isinstance(one.name, str) for one in found)


@examples(100)
@given(
    damaged(
        st.just(b"motd\nexeco-one-line\na\\nb\\\\c\nafter"), [b"\\", b"\n", b"execo-one-line\n"]
    ),
    CUTS,
)
def test_one_line_comes_out_the_same_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    def decoded(parts: Iterator[bytes]) -> bytes:
        decoder = Decoder()
        return b"".join(decoder.decode(part) for part in parts)

    whole = decoded(iter([data]))
    if b"execo-one-line\n" in data:  # else what may be the mark is kept back
        assert decoded(pieces(data, cuts)) == whole


# -- agents ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[bytes]]]:
    """A socket, and what it answers."""
    path = str(tmp_path_factory.mktemp("agent") / "socket")
    answer = [b""]

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                with peer, contextlib.suppress(OSError):
                    peer.recv(65536)
                    peer.sendall(answer[0])

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(50)
        thread = threading.Thread(target=serve)
        thread.start()
        yield path, answer
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE)


def text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


BLOB = text(b"ssh-ed25519") + text(bytes(32))
IDENTITIES = text(bytes([12]) + struct.pack(">I", 2) + (text(BLOB) + text(b"me@here")) * 2)
SIGNATURE = text(bytes([14]) + text(text(b"ssh-ed25519") + text(bytes(64))))
OF_AGENTS = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1\5", b"\x7f\xff\xff\xff", b"\xff"]


@examples(100)
@given(damaged(st.sampled_from([IDENTITIES, SIGNATURE]), OF_AGENTS))
def test_what_an_agent_answers(agent: tuple[str, list[bytes]], data: bytes) -> None:
    path, answer = agent
    answer[0] = data
    with cheap():
        try:
            for key in list_keys(path, 5):
                assert isinstance(key.comment, str)
        except LoginProblem as exc:
            assert "agent" in str(exc)
        try:
            key_of_mine = PublicKey("ssh-ed25519", BLOB)
            assert isinstance(ask_signature(path, key_of_mine, b"x", "ssh-ed25519", 5), bytes)
        except LoginProblem as exc:
            assert "agent" in str(exc)


# -- nothing is left ------------------------------------------------------------------------------


def test_nothing_is_left_of_programs_that_say_anything(tmp_path: Path) -> None:
    with Watch() as watch:
        ssh = program(tmp_path / "ssh", "head -c 100000 /dev/urandom >&2; exit 255")
        taktuk = program(tmp_path / "taktuk", "head -c 100000 /dev/urandom; exit 1")
        handlers = [watch.ends]
        processes = [
            SshProcess(
                "true",
                "web1",
                {"transport": "openssh", "ssh": ssh},
                lifecycle_handlers=handlers,
                **QUIET,
            )
            for _ in range(3)
        ]
        for process in processes:
            process.start()
        remote = TaktukRemote(
            "true",
            ["a", "b"],
            {"taktuk": taktuk},
            process_args={**QUIET, "lifecycle_handlers": handlers},
        ).run(PATIENCE)
        for process in processes:
            process.wait(PATIENCE)
        watch.check(remote, *processes)
    assert Process("true").run(PATIENCE).ok
