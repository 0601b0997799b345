"""The words for taktuk, and what is told to many hosts at once."""

from __future__ import annotations

import random
import subprocess

import pytest

from execo.transports.base import ConnectionOptions, Target
from execo.transports.remote_shell import Mark
from execo.transports.taktuk_orders import Orders
from execo.transports.taktuk_words import (
    HostWords,
    check_address,
    command_line,
    connector,
    for_ranks,
    host_file,
    host_text,
    input_data,
    order,
)

OPTIONS = ConnectionOptions(taktuk=("taktuk", "-s"))
MARK = Mark("abc", 1)


def test_the_last_words_are_ours() -> None:
    words = command_line(OPTIONS, "/f", flat=False)
    assert words[:2] == ("taktuk", "-s")
    assert words[-2:] == ("-F", "/f")
    assert "-d" not in words


@pytest.mark.parametrize("own", [("-d", "0"), ("-d5",), ("--dynamic", "2")])
def test_the_users_topology_stays(own: tuple[str, ...]) -> None:
    assert "-1" in command_line(OPTIONS, "/f", flat=True)
    options = ConnectionOptions(taktuk=("taktuk", *own))
    assert "-1" not in command_line(options, "/f", flat=True)


def test_a_connector_says_who_and_where_first() -> None:
    options = ConnectionOptions(ssh=("oarsh",), ssh_options=("-o", "ConnectTimeout=3"))
    words = connector(Target("web1", "ann", 2222, "/my key", options))
    assert words.startswith("oarsh -T -l ann -p 2222 -o 'IdentityFile=\"/my key\"' ")
    assert words.index("ConnectTimeout=3") < words.index("BatchMode=yes")
    assert words.endswith(" --")


def test_hosts_of_one_connector_share_it() -> None:
    hosts = [HostWords(Target(name, options=OPTIONS), "true", None) for name in "ab"]
    other = HostWords(Target("c", "ann", options=OPTIONS), "true", "guard text")
    words = host_file([*hosts, other]).split(b"\x1f")
    assert [words.count(word) for word in (b"-c", b"-m", b"-[", b"-]")] == [2, 3, 3, 3]
    assert words.count(b"guard text") == 1


@pytest.mark.parametrize("address", ["a,b", "a[1-2]", "a/b", "-x", "a b", "", "a\x1fb"])
def test_what_is_no_address_of_one_host(address: str) -> None:
    with pytest.raises(ValueError, match="use Remote"):
        check_address(address)
    check_address("::1")
    check_address("web-1.lab")


@pytest.mark.parametrize(
    "nasty", ["a\x1bb\x1ec\x1fd", "tail\x1f", "'\\'\x1e'", "\\0033\x1b\udcff\n%s"]
)
def test_control_characters_are_not_in_what_a_host_is_given(nasty: str) -> None:
    host = HostWords(Target("a", options=OPTIONS), f"printf '<%s>' {_quoted(nasty)}", None)
    text = next(word for word in host_file([host]).split(b"\x1f") if b"printf" in word)
    assert not {0x1B, 0x1E} & set(text)
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, check=True)
    assert done.stdout == b"<" + nasty.encode("utf-8", "surrogateescape") + b">"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_a_command_is_run_by_the_login_shell() -> None:
    text = host_text("echo $0 $EXECO_MARK; kill -PIPE $$; echo alive", MARK)
    # As taktuk does: the signal is ignored.
    done = subprocess.run(
        ["/bin/sh", "-c", "trap '' PIPE; exec /bin/sh -c \"$1\"", "sh", text],
        env={"SHELL": "/bin/bash", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("/bin/bash abc.1.")
    assert (done.returncode, done.stderr) == (-13, "")


def test_numbers_of_hosts_are_folded() -> None:
    assert for_ranks([3, 1, 2, 7, 9, 10], b"x") == b"1-3/7/9-10\x1fx"


def test_input_may_hold_anything() -> None:
    data = bytes(range(256))
    text = input_data("1", data)
    assert text.startswith(order("input", "target", "1", "data", "[")[:-1] + b"\x1f")
    inside = text.removesuffix(b"\x1f]\x1e").partition(b"[\x1f")[2]
    for byte in (b"\x1b", b"\x1e", b"\x1f"):
        assert inside.count(b"\x1b" + byte) == 1
    assert len(inside) == len(data) + 3


# -- orders ---------------------------------------------------------------------------------------


def test_the_same_for_many_is_one() -> None:
    orders: Orders[str] = Orders()
    assert not orders
    for host in "abc":
        orders.add(host, b"x")
    assert orders
    assert orders.take() == [(b"x", ["a", "b", "c"])]
    assert (orders.take(), bool(orders)) == ([], False)


def test_each_host_hears_its_own_in_order() -> None:
    orders: Orders[str] = Orders()
    for host in "ab":
        orders.add(host, b"x")
        orders.add(host, b"y")
        orders.add(host, b"x")
    assert orders.take() == [(b"x", ["a", "b"]), (b"y", ["a", "b"]), (b"x", ["a", "b"])]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_told_stays_in_order(seed: int) -> None:
    chance = random.Random(seed)
    orders: Orders[int] = Orders()
    wanted: dict[int, list[bytes]] = {host: [] for host in range(5)}
    for _ in range(chance.randrange(60)):
        host, text = chance.randrange(5), chance.choice([b"x", b"y", b"z"])
        orders.add(host, text)
        wanted[host].append(text)
    batches = orders.take()
    for host, texts in wanted.items():
        assert [text for text, hosts in batches for one in hosts if one == host] == texts
