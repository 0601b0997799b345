"""Topologies: which hosts are reached through which gateways, in ClusterShell's format."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import pytest

from execo import Topology, TopologyError, load_topology
from execo.errors import ExecoError

GOOD = """
# Of a cluster.
[routes]
admin: gw[1-2]
gw[1-2]: node[1-4], rack
rack: leaf[1-3]   """


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "topology.conf"


def test_a_file(write: Path) -> None:
    write.write_text(GOOD)
    topology = load_topology(write, root="admin")
    assert topology.root == "admin"
    assert topology.parents("node3") == ("gw1", "gw2")
    assert topology.parents("leaf2") == ("rack",)
    assert topology.parents("rack") == ("gw1", "gw2")
    assert (topology.parents("gw1"), topology.parents("elsewhere")) == ((), ())
    assert topology.gateways() == ["gw1", "gw2", "rack"]
    assert len(topology.hosts()) == 8
    assert repr(topology) == "<Topology of admin: 8 hosts behind gw[1-2],rack>"


def test_it_is_seen_from_its_root(write: Path) -> None:
    write.write_text(GOOD)
    topology = load_topology(write, root="gw1")
    # Next to this root, or behind what it does not reach: directly.
    assert topology.parents("node3") == ()
    assert topology.parents("leaf2") == ("rack",)


def test_the_root_is_this_machine(write: Path) -> None:
    here = socket.gethostname().partition(".")[0]
    write.write_text(f"[routes]\n{here}: gw1\ngw1: a\n")
    assert load_topology(write).parents("a") == ("gw1",)


def test_without_a_file() -> None:
    topology = Topology([("here", "gw[1-2]"), (["gw1", "gw2"], "node[1-2]")], root="here")
    assert topology.parents("node1") == ("gw1", "gw2")
    assert topology == Topology([("here", "gw[1-2]"), ("gw[1-2]", "node[1-2]")], root="here")
    assert len({topology, pickle.loads(pickle.dumps(topology))}) == 1
    assert topology != Topology([("here", "gw1"), ("gw1", "node[1-2]")], root="here")


def test_what_else_a_file_may_have(write: Path) -> None:
    write.write_text(
        "; a remark\n[Main]\nhere = gw1\n\n[other]\nno route\n[routes]\n"
        "gw1: a,\n   b\n# remark\n   c\nempty:\n: empty\n"
    )
    topology = load_topology(write, root="here")
    assert {one: topology.parents(one) for one in "abc"} == dict.fromkeys("abc", ("gw1",))


BAD: dict[str, tuple[str | bytes, int | None, str]] = {
    "a loop": ("[routes]\nhere: a\na: b\nb: a\n", 2, "two parents|a loop"),
    "a longer loop": ("[routes]\nhere: x\na: b\nb: c\nc: a\n", None, "a loop"),
    "itself": ("[routes]\nhere: a\na: a\n", None, "two parents|itself"),
    "two parents": ("[routes]\nhere: g[1-2]\ng1: n\n\ng2: n\n", 5, r"two parents.*g1.*line 3.*g2"),
    "an unknown root": ("[routes]\nthere: a\n", None, "unknown root: here"),
    "no routes": ("[routes]\n", None, "no routes"),
    "no route in a line": ("[routes]\nhere a\n", 2, "no route.*here a"),
    "no section": ("here: a\n", 1, r"\[routes\]"),
    "a range": ("[routes]\nhere: g[1\n", 2, r"g\[1"),
    "too many": ("[routes]\nhere: g[1-99999999]\n", 2, "more than"),
    "an option": ("[routes]\nhere: -oProxyCommand=x\n", 2, "option"),
    "no text": (b"[routes]\nhere: \xff\xfe\n", None, "not a text"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_says_what_and_where(write: Path, case: str) -> None:
    text, line, words = BAD[case]
    write.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TopologyError, match=words) as caught:
        load_topology(write, root="here")
    assert isinstance(caught.value, ExecoError)
    assert caught.value.filename == str(write)
    assert str(caught.value).startswith(f"{write}:")
    assert line is None or case == "a loop" or caught.value.lineno == line
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.lineno) == (str(caught.value), caught.value.lineno)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="cannot be read: No such file"):
        load_topology(tmp_path / "nowhere")


def test_a_long_chain_and_a_wide_one() -> None:
    chain = Topology([(f"h{n}", f"h{n + 1}") for n in range(3000)], root="h0")
    assert chain.parents("h3000") == ("h2999",)
    wide = Topology([("here", "g[1-100]"), ("g[1-100]", "n[1-20000]")], root="here")
    assert len(wide.parents("n20000")) == 100
