from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given
from hypothesis import strategies as st

from execo.errors import HostSetError
from execo.host import (
    Host,
    command_and_hosts,
    get_hosts_list,
    get_hosts_set,
    get_unique_hosts_list,
)

# Host


def test_a_host_is_an_address_and_how_to_connect_to_it() -> None:
    host = Host("web1", user="root", keyfile="~/.ssh/id_lab", port=2222)
    assert (host.address, host.user, host.keyfile, host.port) == (
        "web1",
        "root",
        "~/.ssh/id_lab",
        2222,
    )


def test_what_is_not_given_is_none() -> None:
    host = Host("web1")
    assert (host.address, host.user, host.keyfile, host.port) == ("web1", None, None, None)


def test_a_host_made_of_a_host_inherits() -> None:
    first = Host("web1", user="root", keyfile="key", port=2222)
    second = Host(first)
    assert second == first
    assert second is not first
    second.address = "web2"
    assert first.address == "web1"


def test_an_explicit_none_does_not_inherit() -> None:
    first = Host("web1", user="root", keyfile="key", port=2222)
    assert Host(first, user=None, port=22) == Host("web1", None, "key", 22)
    assert Host(first, None, None, None) == Host("web1")


def test_attributes_may_be_changed() -> None:
    host = Host("web1")
    host.address, host.user, host.keyfile, host.port = "web2", "root", "key", 22
    assert host == Host("web2", "root", "key", 22)
    host.user = host.keyfile = host.port = None
    assert host == Host("web2")


def test_hosts_are_equal_when_all_four_are() -> None:
    hosts = [Host("a"), Host("b"), Host("a", "u"), Host("a", None, "k"), Host("a", port=22)]
    for one in hosts:
        for other in hosts:
            assert (one == other) is (one is other)
        assert hash(one) == hash(Host(one))
    assert len({*hosts, *map(Host, hosts)}) == 5


def test_a_host_is_not_a_str() -> None:
    assert Host("a") != "a"
    assert Host("a") not in ["a", None, 1]


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (Host("a"), "Host('a')"),
        (Host("a", user="root"), "Host('a', user='root')"),
        (Host("a", port=22), "Host('a', port=22)"),
        (Host("a", "u", "k", 1), "Host('a', user='u', keyfile='k', port=1)"),
        (Host("a", user="it's"), "Host('a', user=\"it's\")"),
    ],
)
def test_repr_is_the_constructor(host: Host, text: str) -> None:
    assert repr(host) == text
    assert eval(text) == host


def test_str_is_the_address() -> None:
    assert f"ping {Host('web1', user='root')}" == "ping web1"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_hosts_are_picklable(protocol: int) -> None:
    hosts = {Host("a"), Host("b", "u", "k", 22)}
    assert pickle.loads(pickle.dumps(hosts, protocol)) == hosts


def test_hosts_are_copyable() -> None:
    host = Host("b", "u", "k", 22)
    assert copy.copy(host) == copy.deepcopy(host) == host


def test_a_subclass_may_add_its_own() -> None:
    class Node(Host):
        def __init__(self, address: str, rack: int) -> None:
            super().__init__(address, user="root")
            self.rack = rack

    node = Node("n1", rack=3)
    assert node.rack == 3
    assert repr(node) == "Node('n1', user='root')"
    assert get_hosts_list(node) == [Host("n1", user="root")]


def test_an_empty_user_or_keyfile_is_none() -> None:
    assert Host("a", user="", keyfile="") == Host("a")


def test_a_keyfile_may_be_a_path() -> None:
    assert Host("a", keyfile=Path("/tmp/key")).keyfile == "/tmp/key"


@pytest.mark.parametrize(("given_as", "port"), [(1, 1), (65535, 65535), ("22", 22), ("022", 22)])
def test_ports(given_as: Any, port: int) -> None:
    assert Host("a", port=given_as).port == port


@pytest.mark.parametrize("port", [0, -1, 65536, "0", "", "ssh", "22 ", "٢٢", "1" * 5000])
def test_a_port_that_no_server_has_is_refused(port: Any) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        Host("a", port=port)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"address": None}, "None"),
        ({"address": 12}, "12"),
        ({"address": b"a"}, "b'a'"),
        ({"address": ["a"]}, "['a']"),
        ({"user": 12}, "12"),
        ({"user": True}, "True"),
        ({"user": b"root"}, "b'root'"),
        ({"keyfile": 0}, "0"),
        ({"keyfile": b"key"}, "b'key'"),
        ({"port": True}, "True"),
        ({"port": 22.0}, "22.0"),
        ({"port": [22]}, "[22]"),
    ],
)
def test_a_type_error_names_the_value(options: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError) as caught:
        Host(**{"address": "a", **options})
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "empty"),
        ("a b", "blanks"),
        ("a\tb", "blanks"),
        ("a\n", "newlines"),
        ("a\0b", "control"),
        ("-oProxyCommand=reboot", "option"),
        ("a,b", "hostset"),
        ("@gpu", "hostset"),
        ("node[1-3]", "range"),
    ],
)
def test_an_address_that_ssh_would_misread_is_refused(address: str, why: str) -> None:
    with pytest.raises(HostSetError, match=why):
        Host(address)
    host = Host("a")
    with pytest.raises(HostSetError, match=why):
        host.address = address
    assert host == Host("a")


@pytest.mark.parametrize("address", ["::1", "fe80::1%eth0", "[2001:db8::1]", "{{x}}", "<<x>>"])
def test_unusual_addresses_are_kept_as_they_are(address: str) -> None:
    assert Host(address).address == address


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"user": "-lroot"}, "option"),
        ({"user": "a\nb"}, "newlines"),
        ({"keyfile": "a\nProxyCommand reboot"}, "newlines"),
        ({"keyfile": "a\0"}, "control"),
    ],
)
def test_a_user_or_keyfile_that_ssh_would_misread_is_refused(
    options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        Host("a", **options)


# Lists of hosts


@pytest.mark.parametrize(
    ("given_as", "addresses"),
    [
        (None, []),
        ([], []),
        ("web1", ["web1"]),
        (Host("web1"), ["web1"]),
        ("node[3,1]", ["node3", "node1"]),
        (["b", Host("a"), "b"], ["b", "a", "b"]),
        (["node[1-3]", "node2", "::1"], ["node1", "node2", "node3", "node2", "::1"]),
        (("a", "b"), ["a", "b"]),
        ({"a": 1, "b": 2}.keys(), ["a", "b"]),
        ({"a": 1, "b": 2}, ["a", "b"]),
        (NodeSet("n[2-3],n1"), ["n1", "n2", "n3"]),
        (NodeSet(), []),
    ],
)
def test_hosts_come_in_many_shapes(given_as: Any, addresses: list[str]) -> None:
    hosts = get_hosts_list(given_as)
    assert hosts == [Host(address) for address in addresses]
    assert [type(host) for host in hosts] == [Host] * len(addresses)


def test_a_generator_is_read_once() -> None:
    assert get_hosts_list(f"n{i}" for i in range(3)) == [Host("n0"), Host("n1"), Host("n2")]


def test_hosts_are_copied_with_all_attributes() -> None:
    host = Host("a", "u", "k", 22)
    (copied,) = get_hosts_list([host])
    assert copied == host
    copied.user = "v"
    assert host.user == "u"


def test_unique_hosts_keep_the_order_of_the_first() -> None:
    hosts: list[str | Host] = ["b", Host("a"), "b", Host("b", "root"), "a"]
    assert get_unique_hosts_list(hosts) == [Host("b"), Host("a"), Host("b", "root")]
    assert get_unique_hosts_list(None) == []


def test_a_set_of_hosts() -> None:
    assert get_hosts_set(["b", Host("a"), "b"]) == {Host("a"), Host("b")}
    assert get_hosts_set("node[1-2]") == {Host("node1"), Host("node2")}
    assert get_hosts_list(get_hosts_set("a")) == [Host("a")]


@pytest.mark.parametrize(
    ("given_as", "named"),
    [
        (12, "12 (int)"),
        (b"web1", "b'web1' (bytes)"),
        (["a", 12], "hosts[1] is 12 (int)"),
        (["a", None], "hosts[1] is None"),
        ([["a"]], "hosts[0] is ['a'] (list)"),
        ([b"a"], "hosts[0] is b'a'"),
    ],
)
def test_a_type_error_names_the_place_and_the_value(given_as: Any, named: str) -> None:
    for function in (get_hosts_list, get_unique_hosts_list, get_hosts_set):
        with pytest.raises(TypeError) as caught:
            function(given_as)
        assert named in str(caught.value)


@pytest.mark.parametrize("given_as", ["", "a,b", "node*", "@gpu", ["a", "-x"], [""]])
def test_a_text_that_names_no_host_is_refused(given_as: Any) -> None:
    with pytest.raises(HostSetError):
        get_hosts_list(given_as)


@given(st.text())
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    try:
        hosts = get_hosts_list(text)
    except HostSetError:
        return
    assert hosts
    assert all(eval(repr(host)) == host for host in hosts)


# Command and hosts, in either order

HOST = Host("web1")
NODES = NodeSet("web[1-2]")
WORDS = ["uptime", "-p"]


@pytest.mark.parametrize(
    ("command", "hosts"),
    [
        ("uptime", HOST),
        ("uptime", [HOST]),
        ("uptime", (HOST, "web2")),
        ("uptime", {HOST}),
        ("uptime", frozenset({HOST})),
        ("uptime", NODES),
        ("uptime", ["web1", "web2"]),
        ("uptime", ("web1",)),
        ("uptime", {"web1"}),
        ("uptime", {"web1": 1}),
        ("uptime", {"web1": 1}.keys()),
        ("uptime", []),
        ("uptime", None),
        (WORDS, HOST),
        (WORDS, [HOST]),
        (tuple(WORDS), NODES),
    ],
    ids=str,
)
def test_command_and_hosts_are_told_apart_in_either_order(command: Any, hosts: Any) -> None:
    for result in (command_and_hosts(command, hosts), command_and_hosts(hosts, command)):
        assert result[0] is command
        assert result[1] is hosts


def test_a_generator_of_hosts_is_told_from_a_text_and_not_read() -> None:
    hosts = (f"web{i}" for i in range(2))
    assert command_and_hosts(hosts, "uptime") == ("uptime", hosts)
    assert command_and_hosts("uptime", hosts) == ("uptime", hosts)
    assert list(hosts) == ["web0", "web1"]


def test_of_two_texts_the_first_one_is_the_command() -> None:
    assert command_and_hosts("uptime", "web1") == ("uptime", "web1")
    assert command_and_hosts("uptime", "web1", one=True) == ("uptime", "web1")


def test_beside_one_host_a_list_of_texts_is_the_words_of_the_command() -> None:
    assert command_and_hosts(WORDS, "web1", one=True) == (WORDS, "web1")
    assert command_and_hosts("web1", WORDS, one=True) == (WORDS, "web1")
    assert command_and_hosts(HOST, WORDS, one=True) == (WORDS, HOST)


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("pair", [(WORDS, ["web1"]), (("a",), {"b"}), ([], []), ([], WORDS)])
def test_two_lists_of_texts_need_keywords(pair: tuple[Any, Any], one: bool) -> None:
    with pytest.raises(TypeError, match=r"cmd=.*hosts?="):
        command_and_hosts(*pair, one=one)


def test_words_beside_hosts_that_cannot_be_told_are_not_guessed() -> None:
    # Else the names of the hosts would run as a command, on hosts named as its words.
    with pytest.raises(TypeError, match=r"cmd=.*hosts?="):
        command_and_hosts((f"web{i}" for i in range(2)), WORDS)
    with pytest.raises(TypeError, match=r"cmd=.*hosts?="):
        command_and_hosts({"web1": 1}.keys(), WORDS)
