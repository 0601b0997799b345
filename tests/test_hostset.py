from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.NodeUtils import GroupResolverConfig
from hypothesis import given
from hypothesis import strategies as st

from execo.errors import HostSetError
from execo.hostset import MAX_HOSTS, check_address, expand, fold, hostset

NAMES = st.from_regex(r"[a-z]{1,3}(-[a-z]{1,3})?", fullmatch=True)
NUMBERS = st.integers(0, 300)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Groups ``gpu`` and ``old``, as a site would have them, and a file that upcalls can make."""
    trap = tmp_path / "run by a group"
    config = tmp_path / "groups.conf"
    config.write_text(
        "[Main]\ndefault: site\n"
        "[site]\n"
        "map: case $GROUP in gpu) echo 'node[1-3]';; old) echo node2;; esac\n"
        "all: echo 'node[1-4]'\n"
        "list: echo gpu old\n"
    )
    resolver = GroupResolverConfig([str(config)])
    monkeypatch.setattr("ClusterShell.NodeSet.RESOLVER_STD_GROUP", resolver)
    yield trap
    assert not trap.exists()


# A plain string


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("web1", ["web1"]),
        ("node[1-4]", ["node1", "node2", "node3", "node4"]),
        ("node[3,1,2]", ["node3", "node1", "node2"]),
        ("node[1,1-2,2]", ["node1", "node1", "node2", "node2"]),
        ("node[8-11]", ["node8", "node9", "node10", "node11"]),
        ("node[098-101]", ["node098", "node099", "node100", "node101"]),
        ("node[00-02,7]", ["node00", "node01", "node02", "node7"]),
        ("node[1-7/3]", ["node1", "node4", "node7"]),
        ("node[1, 3 - 4]", ["node1", "node3", "node4"]),
        ("node0[1-2]", ["node01", "node02"]),
        ("node[1-2]0", ["node10", "node20"]),
        ("[1-2]", ["1", "2"]),
        ("10.0.0.[9-10]", ["10.0.0.9", "10.0.0.10"]),
        ("g-[1-2].site.fr", ["g-1.site.fr", "g-2.site.fr"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("fe80::[1-2]%eth0", ["fe80::1%eth0", "fe80::2%eth0"]),
        ("root@node[1-2]", ["root@node1", "root@node2"]),
    ],
)
def test_a_plain_string_is_folded_only_by_a_range(text: str, addresses: list[str]) -> None:
    assert expand(text) == addresses


@pytest.mark.parametrize(
    "address",
    [
        *["::1", "fe80::1%eth0", "2001:db8::1", "::ffff:10.0.0.1"],
        *["[::1]", "[2001:db8::1]", "[fe80::1%eth0]", "root@[2001:db8::1]"],
        *["web-1.example.org", "10.0.0.1", "root@web1", "münchen", "a_b", "{{x}}"],
    ],
)
def test_an_address_passes_unfolded(address: str) -> None:
    assert expand(address) == [address]
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" ", "blanks"),
        ("a b", "blanks"),
        ("web1\n", "newlines"),
        ("we\0b", "control characters"),
        ("a\u00a0b", "blanks"),
        ("-oProxyCommand=reboot", "option"),
        ("-n[1-2]", "option"),
        ("a,b", "hostset('a,b')"),
        ("node[1-2],node7", "hostset('node[1-2],node7')"),
        ("node[1-9]!node3", "hostset("),
        ("a&b", "hostset("),
        ("a^b", "hostset("),
        ("node*", "hostset("),
        ("node?", "hostset("),
        ("@gpu", "hostset('@gpu')"),
        ("@gpu[1-2]", "hostset('@gpu[1-2]')"),
        ("node[1-2] ", "blanks"),
        ("node[1-3", "bracket is missing"),
        ("node1-3][1]", "bracket is missing"),
        ("node[1-3]]", "bracket is missing"),
        ("node[[1-3]]", "bracket is missing"),
        ("node[3-1]", "invalid values"),
        ("node[1-3/0]", "invalid values"),
        ("node[01-100]", "padding"),
        ("node[1-]", "'1-' is not a range"),
        ("node[1,]", "'' is not a range"),
        ("node[1-3-5]", "is not a range"),
        ("node[1:3]", "'1:3' is not a range"),
        ("node[1,-3]", "'-3' is not a range"),
        ("node[1_0-2_0]", "is not a range"),
        ("node[1-" + "9" * 5000 + "]", "more than"),
    ],
)
def test_a_string_that_names_no_host_is_refused(text: str, why: str) -> None:
    with pytest.raises(HostSetError) as caught:
        expand(text)
    assert why in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_range_is_not_one_address() -> None:
    with pytest.raises(HostSetError, match="range of hosts, not one"):
        check_address("node[1-3]")


@pytest.mark.parametrize("text", [None, 3, b"web1", ["web1"]])
@pytest.mark.parametrize("function", [check_address, expand, hostset])
def test_only_a_str_names_hosts(function: Any, text: Any) -> None:
    with pytest.raises(TypeError) as caught:
        function(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "node[1-99999999999]",
        f"node[0-{MAX_HOSTS}]",
        "r[1-10000]n[1-10000]",
        "r[1-2000]n[1-1000]",
        "node[" + ",".join(["1-200000"] * 6) + "]",
    ],
)
def test_an_absurd_range_is_refused_before_it_is_built(text: str) -> None:
    with pytest.raises(HostSetError, match="more than 1000000 hosts"):
        expand(text)
    with pytest.raises(HostSetError, match="more than 1000000 hosts"):
        hostset(text)


@pytest.mark.parametrize(
    ("function", "text"), [(expand, "n[2-1]"), (hostset, "n[2-1]"), (hostset, "n[-8--4-5]")]
)
def test_the_cause_is_kept(function: Callable[[str], list[str]], text: str) -> None:
    with pytest.raises(HostSetError) as caught:
        function(text)
    assert caught.value.__cause__ is not None


@given(NAMES, st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_a_folded_string_is_what_python_would_count(
    name: str, ranges: list[tuple[int, int]]
) -> None:
    ranges = [(min(pair), max(pair)) for pair in ranges]
    text = name + "[" + ",".join(f"{first}-{last}" for first, last in ranges) + "]"
    expected = [f"{name}{i}" for first, last in ranges for i in range(first, last + 1)]
    assert expand(text) == expected
    assert hostset(text) == sorted(set(expected), key=lambda one: int(one[len(name) :]))


# The full language


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("web1", ["web1"]),
        ("b,a,b", ["a", "b"]),
        ("node[3,1,2]", ["node1", "node2", "node3"]),
        ("node[1-4]!node[2-3]", ["node1", "node4"]),
        ("node[1-4]&node[3-9]", ["node3", "node4"]),
        ("node[1-2]^node[2-3]", ["node1", "node3"]),
        ("node[008-010]", ["node008", "node009", "node010"]),
        (" node[1-2] , web1 ", ["node1", "node2", "web1"]),
        ("::1,fe80::1%eth0", ["::1", "fe80::1%eth0"]),
        ("[::1]", ["::1"]),
        ("[2001:db8::1],[2001:db8::2]", ["2001:db8::1", "2001:db8::2"]),
    ],
)
def test_set_operations(text: str, addresses: list[str]) -> None:
    assert hostset(text) == addresses


def test_groups_and_wildcards(groups: Path) -> None:
    assert hostset("@gpu") == ["node1", "node2", "node3"]
    assert hostset("@gpu!@old,web1") == ["node1", "node3", "web1"]
    assert hostset("@site:old") == ["node2"]
    assert hostset("@*") == hostset("node*") == ["node1", "node2", "node3", "node4"]
    assert hostset("node?&@gpu") == ["node1", "node2", "node3"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@typo", "unknown groups are empty"),
        ("@nosource:gpu", "cannot be resolved"),
        ("web*", "result is empty"),
        ("@old!node2", "result is empty"),
    ],
)
def test_a_group_that_gives_nothing_is_refused(groups: Path, text: str, why: str) -> None:
    with pytest.raises(HostSetError) as caught:
        hostset(text)
    assert text in str(caught.value)
    assert why in str(caught.value)


def test_a_group_name_never_reaches_a_shell_as_code(groups: Path) -> None:
    command = f"touch {str(groups).replace(' ', '?')}"
    for text in (
        f"@$({command})",
        f"@x;{command}",
        f"@`{command}`",
        f"@x|{command}",
        f"@gpu in gpu) {command}",
        f"@x\n{command}",
        "@a b",
        "@a/b",
        f"node1,@'$({command})'",
    ):
        with pytest.raises(HostSetError):
            hostset(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \t", "empty"),
        ("a,", "operand"),
        (",a", "operand"),
        ("a,,b", "operand"),
        ("node[1-2", "bracket"),
        ("node[a-b]", "bad range"),
        ("n[1-2]&m[1-2]", "result is empty"),
        ("a b", "blanks"),
        ("web1,-oProxyCommand=x", "option"),
        ("n[-8--4-5]", "malformed"),
        ("a;b", "';' cannot be part"),
        ("a\nb", "cannot be part"),
    ],
)
def test_a_malformed_set_is_refused(text: str, why: str) -> None:
    with pytest.raises(HostSetError) as caught:
        hostset(text)
    assert why in str(caught.value)


@given(st.lists(st.sampled_from([*"n1[]-,!&^%/: ", "01", "[1-3]", "[-8--4]", "--", "٣", "\n"])))
def test_any_text_gives_hosts_or_one_kind_of_error(pieces: list[str]) -> None:
    for function in (expand, hostset):
        try:
            addresses = function("".join(pieces))
        except HostSetError:
            continue
        assert addresses
        assert [check_address(address) for address in addresses] == addresses


def test_clustershell_is_imported_only_for_a_text_that_needs_it() -> None:
    script = (
        "import sys; from execo.hostset import expand, fold\n"
        "expand('web1'); fold(['web1', 'db1']); assert 'ClusterShell' not in sys.modules\n"
        "expand('node[1-2]'); assert 'ClusterShell' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# For display


@pytest.mark.parametrize(
    ("addresses", "text"),
    [
        ([], ""),
        (["web1"], "web1"),
        (["node1", "node2", "node3", "node4"], "node[1-4]"),
        (["node3", "node1", "node3", "node7"], "node[1,3,7]"),
        (["node008", "node009", "node010"], "node[008-010]"),
        (["node9", "node10"], "node[9-10]"),
        (["web2", "db1", "web1", "gw"], "web[1-2],db1,gw"),
        (["g-1.g5k.fr", "g-2.g5k.fr"], "g-[1-2].g5k.fr"),
        (["10.0.0.1", "10.0.0.2", "10.0.1.1"], "10.0.0.[1-2],10.0.1.1"),
        (["r1n1", "r1n2", "r2n1", "r2n2"], "r1n[1-2],r2n[1-2]"),
        (["::1", "fe80::1%eth0", "fe80::2%eth0"], "::1,fe80::[1-2]%eth0"),
        (["[::1]", "a b", "node" + "9" * 5000, "n٣"], "[::1],a b,node" + "9" * 5000 + ",n٣"),
    ],
)
def test_addresses_are_folded_for_display(addresses: list[str], text: str) -> None:
    assert fold(addresses) == text
    assert fold(iter(addresses)) == text


@given(st.lists(st.tuples(NAMES, NUMBERS, st.sampled_from(["", ".fr", "-2", "x07"]))))
def test_folding_and_unfolding_keep_the_hosts(parts: list[tuple[str, int, str]]) -> None:
    addresses = {f"{name}{number}{end}" for name, number, end in parts}
    unfolded = hostset(fold(addresses)) if addresses else []
    assert set(unfolded) == addresses
    assert len(unfolded) == len(addresses)


@given(st.lists(st.text()))
def test_folding_never_fails(addresses: list[str]) -> None:
    assert isinstance(fold(addresses), str)


@pytest.mark.timeout(60)
def test_folding_unrelated_addresses_is_not_quadratic() -> None:
    # Folded in all four dimensions, these would take minutes.
    choose = random.Random(1)
    addresses = [
        f"10.{choose.randrange(9)}.{choose.randrange(250)}.{choose.randrange(250)}"
        for _ in range(20000)
    ]
    assert set(hostset(fold(addresses[:500]))) == set(addresses[:500])
    assert len(fold(addresses)) < len(",".join(set(addresses)))
