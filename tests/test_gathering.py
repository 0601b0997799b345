"""Equal outputs together: ``gather()`` of processes, actions and reports, and what differs."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from execo import STDERR, STDOUT, Host, Local, ParallelActions, Process, Remote, Report
from execo.differences import unified
from execo.errors import HostSetError
from execo.gathering import Group, Groups, gather
from execo.hostset import hostset
from execo.testing import Cluster

QUIET = {"nolog_error": True, "nolog_exit_code": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(5) as made:
        yield made


def test_equal_outputs_come_together_with_their_hosts(cluster: Cluster) -> None:
    words = ["same", "other", "same", "same", "same"]
    remote = Remote("echo {{words}}; exit {{range(5)}}", cluster.hosts, process_args=QUIET).run()
    most, rest = remote.gather()
    assert (most.output, len(most)) == (b"same\n", 4)
    assert most.hosts == [
        one for one, word in zip(cluster.hosts, words, strict=True) if word[0] == "s"
    ]
    assert most.exit_codes == [0, 2, 3, 4]
    assert rest.processes == [remote.processes[1]]
    assert str(most).splitlines()[1] == "127.0.0.[2,4-6] (4)"
    assert str(remote.gather()).endswith("127.0.0.3 (1)\n---------------\nother")
    assert remote.gather().diff() == (
        "--- 127.0.0.[2,4-6] (4)\n+++ 127.0.0.3 (1)\n@@ -1 +1 @@\n-same\n+other\n"
    )


def test_bytes_are_told_apart_and_kept() -> None:
    codes = ["\\377\\n", "\\376\\n", "\\377\\n", "\\377"]
    action = ParallelActions(
        [Local(f"printf '{code}'", process_args={"shell": True}) for code in codes]
    ).run()
    assert [(group.output, len(group)) for group in action.gather()] == [
        (b"\xff\n", 2),
        (b"\xfe\n", 1),
        (b"\xff", 1),
    ]
    diff = action.gather().diff().encode("utf-8", "surrogateescape")
    assert b"-\xff\n+\xfe\n" in diff
    assert b"+\xff\n\\ No newline at end of file\n" in diff


def test_a_stream_is_chosen() -> None:
    one = Process("echo out; echo err >&2", shell=True).run()
    two = Process("echo out", shell=True).run()
    assert [len(group) for group in gather([one, two])] == [2]
    assert {group.output for group in gather([one, two], STDERR)} == {b"err\n", b""}
    assert gather([one], STDOUT | STDERR)[0].text == "out\nerr\n"
    for wrong in (0, 4, True):
        with pytest.raises(ValueError, match="STDOUT, STDERR"):
            gather([one], wrong)


def test_what_runs_is_gathered_as_far_as_it_has_come() -> None:
    action = ParallelActions([Local("echo begin; cat", process_args={"shell": True})]).start()
    (process,) = action.processes
    process.expect("begin")
    assert [group.output for group in action.gather()] == [b"begin\n"]
    assert action.gather()[0].exit_codes == [None]
    process.write("end\n")
    process.close_stdin()
    action.wait()
    assert [group.output for group in action.gather()] == [b"begin\nend\n"]


def test_what_has_not_run_has_no_output_to_compare(cluster: Cluster) -> None:
    hosts = [*cluster.hosts[:2], Host("127.0.0.1", port=9)]
    remote = Remote("true", hosts, process_args=QUIET)
    assert len(remote.gather()) == 0
    assert remote.gather().diff() == ""
    groups = remote.run().gather()
    assert [len(group) for group in groups] == [2]
    assert groups.not_run == [remote.processes[2]]
    assert str(groups).endswith("not run: 127.0.0.1 (1)")


def test_a_report_gathers_what_was_added(cluster: Cluster) -> None:
    remote = Remote("echo 1", cluster.hosts[:2]).run()
    process = Process("echo 1", shell=True).run()
    report = Report([remote, process, Report([remote]), remote.stats()])
    (group,) = report.gather()
    assert len(group) == 3
    assert group.name == "127.0.0.[2-3],echo 1"
    assert len(copy.copy(report).gather()[0]) == 3
    assert list(pickle.loads(pickle.dumps(report)).gather()) == []


def test_groups_are_a_sequence() -> None:
    class Done:
        name, exit_code = "done", 0

    few, many = Group(b"a", [Done()]), Group(b"b", [Done(), Done()])
    groups = Groups([few, many])
    assert list(groups) == [many, few]
    assert groups[0] is many
    assert list(groups[1:]) == [few]
    assert "3 processes" in repr(groups)


# -- differences --------------------------------------------------------------------------------


def test_patch_understands_the_differences(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(60):
        old = [
            chance.choice("abcdefgh") + chance.choice("xyz123") for _ in range(chance.randrange(40))
        ]
        new = [line for line in old if chance.random() > 0.2]
        for _ in range(chance.randrange(5)):
            new.insert(chance.randrange(len(new) + 1), chance.choice("abcd"))
        before, after = ("\n".join(lines) + chance.choice(["", "\n"]) for lines in (old, new))
        diff = unified(before, after, "before", "after", chance.randrange(4))
        assert bool(diff) == (before != after)
        if diff and before and after:
            (tmp_path / "file").write_text(before)
            subprocess.run(
                ["patch", "-s", "-F0", str(tmp_path / "file")], input=diff, text=True, check=True
            )
            assert (tmp_path / "file").read_text() == after


def test_large_outputs_that_differ_everywhere_do_not_take_for_ever() -> None:
    # difflib alone takes hours for the first two.
    numbers = range(100_000)
    for before, after in (
        ([f"line {i}" for i in numbers], [f"line {i}" if i % 2 else f"other {i}" for i in numbers]),
        ([str(i % 7) for i in numbers], [str(i % 11) for i in numbers]),
        ([str(i) for i in numbers], [str(-i) for i in reversed(numbers)]),
    ):
        old, new = "\n".join(before), "\n".join(after)
        assert unified(old, new, "old", "new").startswith("--- old\n+++ new\n@@ -")


# -- where a host set is wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("node[1-4,7", 4),
        ("node[1-a]", 5),
        ("a,b[3-1],c", 4),
        ("x[1-2,4-,9]", 6),
        ("a]b", 1),
        ("a,,b", 2),
        ("a!", 2),
        ("n[1-9/0]", 2),
    ],
)
def test_a_malformed_host_set_says_where(text: str, position: int) -> None:
    with pytest.raises(HostSetError, match=f"at character {position + 1}$") as caught:
        hostset(text)
    assert caught.value.position == position
