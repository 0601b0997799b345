"""ParamSweeper, used by one script: hands out each combination once, and remembers."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from execo.engine import HashableDict, ParamSweeper, sweep
from sweeping import SWEEP

pytest_plugins = ["sweeping"]
pytestmark = pytest.mark.usefixtures("sweepers_end")


def test_each_is_handed_out_once_in_order(sweeper: ParamSweeper) -> None:
    taken = [sweeper.get_next() for _ in SWEEP]
    assert taken == SWEEP
    assert sweeper.get_next() is None
    assert all(isinstance(one, HashableDict) for one in taken)


def test_what_is_done_stays_done(folder: Path, sweeper: ParamSweeper) -> None:
    first, second = sweeper.get_next_batch(2)
    sweeper.done(first)
    sweeper.done(dict(second))
    for again in (sweeper, ParamSweeper(folder, SWEEP)):
        assert again.get_done() == {first, second}
        assert again.get_remaining() == set(SWEEP[2:])
        assert str(again) == "sweep <4 total, 2 done, 0 skipped, 0 in progress, 2 remaining>"
        again.close()


def test_a_filter_orders_and_leaves_out(sweeper: ParamSweeper) -> None:
    last_first = sweeper.get_next(lambda left: sorted(left, key=lambda c: (-c["a"], c["b"])))
    assert last_first == {"a": 2, "b": "x"}
    assert sweeper.get_next(lambda left: [c for c in left if c["b"] == "z"]) is None
    # A set, or what is no longer there, or twice the same: nobody gets one twice.
    batch = sweeper.get_next_batch(9, lambda left: [*SWEEP, *SWEEP, *(left - set())])
    assert batch == [SWEEP[0], SWEEP[1], SWEEP[3]]
    with pytest.raises(ValueError, match="no combination"):
        sweeper.get_next(lambda left: [{"a": 9}])


def test_a_batch_gives_what_there_is(sweeper: ParamSweeper) -> None:
    assert sweeper.get_next_batch(3) == SWEEP[:3]
    assert sweeper.get_next_batch(3) == SWEEP[3:]
    assert sweeper.get_next_batch(3) == []
    assert sweeper.get_next_batch(0) == []
    sweeper.done_batch(SWEEP[:2])
    sweeper.skip_batch(SWEEP[2:3])
    sweeper.cancel_batch(SWEEP[3:])
    assert sweeper.stats() == (set(SWEEP), {SWEEP[3]}, {SWEEP[2]}, set(), set(SWEEP[:2]))
    assert sweeper.stats().done == sweeper.get_done()


def test_cancelled_ones_come_again_skipped_ones_not_until_reset(sweeper: ParamSweeper) -> None:
    first = sweeper.get_next()
    assert first is not None
    sweeper.cancel(first)
    assert sweeper.get_next() == first
    sweeper.skip(first)
    sweeper.skip(SWEEP[1])  # nobody had it
    assert sweeper.get_skipped() == {first, SWEEP[1]}
    assert sweeper.get_next() == SWEEP[2]
    sweeper.reset()
    assert sweeper.get_inprogress() == {SWEEP[2]}
    assert sweeper.get_next() == first
    sweeper.reset(reset_inprogress=True)
    assert sweeper.get_remaining() == set(SWEEP)


def test_who_comes_later_gets_what_was_skipped(folder: Path, sweeper: ParamSweeper) -> None:
    """As with execo 2: a script that skips what fails is run once more, and tries it again."""
    beside = ParamSweeper(folder, SWEEP)
    sweeper.skip(SWEEP[0])
    assert beside.get_skipped() == {SWEEP[0]}
    later = ParamSweeper(folder, SWEEP)
    assert later.get_skipped() == set()
    assert later.get_next() == SWEEP[0]
    assert beside.get_inprogress() == {SWEEP[0]}
    beside.close()
    later.close()


def test_failures_come_again_after_the_others_so_often(folder: Path) -> None:
    sweeper = ParamSweeper(folder, SWEEP[:2], retries=2)
    order = []
    while one := sweeper.get_next():
        order.append(SWEEP.index(one))
        if one == SWEEP[0]:
            sweeper.failed(one, "out of paper")
        else:
            sweeper.done(one)
    assert order == [0, 1, 0, 0]
    assert sweeper.get_failed() == sweeper.get_skipped() == {SWEEP[0]}
    entry = sweeper.entry(SWEEP[0])
    assert (entry.attempts, entry.failures, entry.reason) == (3, 3, "out of paper")
    later = ParamSweeper(folder, SWEEP[:2])
    assert later.get_failed() == {SWEEP[0]}, "it stays failed in the next script"
    later.reset()
    assert later.get_next() == SWEEP[0]
    later.failed(SWEEP[0], retry=True)
    assert later.get_next() == SWEEP[0]
    later.close()
    sweeper.close()


def test_results_are_kept(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done(SWEEP[1], result={"speed": 1.5, "lines": ["a", None]})
    sweeper.done(SWEEP[0])
    wanted = {SWEEP[0]: None, SWEEP[1]: {"speed": 1.5, "lines": ["a", None]}}
    assert sweeper.results == wanted
    again = ParamSweeper(folder, SWEEP)
    assert list(again.results.items()) == list(wanted.items())
    again.close()
    with pytest.raises(TypeError, match="a result is what JSON has"):
        sweeper.done(SWEEP[2], result={"x": object()})
    assert SWEEP[2] in sweeper.get_remaining()


def test_what_is_not_in_the_sweep(sweeper: ParamSweeper) -> None:
    for method in (sweeper.done, sweeper.skip, sweeper.cancel, sweeper.failed, sweeper.explain):
        with pytest.raises(ValueError, match=r"sweep has no combination \{'a': 3\}"):
            method({"a": 3})
    with pytest.raises(TypeError, match=r"factor 'a': .* is a list"):
        ParamSweeper(sweeper.folder, [{"a": [1]}])


def test_more_levels_later(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done_batch(SWEEP[:2])
    more = sweep({"a": [0, 1, 2], "b": ["x", "y"]})
    sweeper.set_sweeps(more)
    assert sweeper.get_done() == set(SWEEP[:2])
    assert sweeper.get_next() == {"a": 0, "b": "x"}
    sweeper.set_sweeps([SWEEP[0], SWEEP[0]])
    assert str(sweeper) == "sweep <1 total, 1 done, 0 skipped, 0 in progress, 0 remaining>"
    sweeper.set_sweeps(SWEEP)
    assert sweeper.get_done() == set(SWEEP[:2]), "what left the sweep for a while is not forgotten"


def test_saved_sweeps(folder: Path) -> None:
    with pytest.raises(EOFError, match="no combinations were given, and none were saved"):
        ParamSweeper(folder)
    values = [HashableDict({"a": (1, (None, 2.5)), "b": {"c": True}})]
    ParamSweeper(folder, values, save_sweeps=True).close()
    for nothing in (None, ()):
        again = ParamSweeper(folder, nothing)
        assert again.get_sweeps() == set(values)
        again.close()


def test_a_filter_gets_a_set_in_the_order_of_the_sweep(sweeper: ParamSweeper) -> None:
    """With all that sets can do: filters of execo 2 use it."""
    seen: list[Any] = []

    def choose(left: set[HashableDict]) -> list[HashableDict]:
        seen.append(list(left))
        seen.append({type(left), type(left.copy())})
        seen.append(left.difference([SWEEP[0]]) == left - {SWEEP[0]} == set(SWEEP[1:]))
        seen.append(sorted(left.copy(), key=str) == sorted(SWEEP, key=str))
        left.discard(SWEEP[1])
        return [one for one in left if one != SWEEP[0]]

    assert sweeper.get_next(choose) == SWEEP[2]
    assert seen[0] == SWEEP
    assert all(issubclass(kind, set) for kind in seen[1])
    assert seen[2:] == [True, True]
    assert sweeper.get_next() == SWEEP[0]
    assert sweeper.get_next() == SWEEP[1], "what was discarded is discarded there alone"


def test_what_a_script_does_to_its_combination_stays_there(
    folder: Path, sweeper: ParamSweeper
) -> None:
    one = sweeper.get_next()
    assert one is not None
    one["host"] = "somewhere"
    with pytest.raises(ValueError, match="no combination"):
        sweeper.done(one)
    del one["host"]
    result = {"times": [1, 2]}
    sweeper.done(one, result=result)
    result["times"].append(3)
    assert sweeper.results == {SWEEP[0]: {"times": [1, 2]}}


@pytest.mark.parametrize(
    "result",
    [
        0,
        "",
        False,
        [],
        {"a": {"b": [None, 1.5, "\udcff \u0000 \u2028 \n é 文 😀"]}},
        [math.inf, -math.inf],
        "x" * 3_000_000,
        {str(at): at for at in range(50_000)},
        10**4000,
    ],
    ids=lambda result: str(result)[:20].encode("ascii", "replace").decode(),
)
def test_results_come_back(folder: Path, sweeper: ParamSweeper, result: Any) -> None:
    sweeper.done(SWEEP[0], result=result)
    again = ParamSweeper(folder, SWEEP)
    assert sweeper.results == again.results == {SWEEP[0]: result}
    again.close()


def test_results_are_here_as_they_are_elsewhere(folder: Path, sweeper: ParamSweeper) -> None:
    sweeper.done(SWEEP[0], result={"t": (1, 2), 5: math.nan})
    again = ParamSweeper(folder, SWEEP)
    for found in (sweeper.results[SWEEP[0]], again.results[SWEEP[0]]):
        assert list(found) == ["t", "5"]
        assert found["t"] == [1, 2]
        assert math.isnan(found["5"])
    again.close()


def test_results_that_cannot_be(sweeper: ParamSweeper) -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for result in (endless, deep, {1, 2}, b"x", {(1, 2): 3}, 10**5000):
        with pytest.raises(TypeError, match="a result is what JSON has"):
            sweeper.done(SWEEP[0], result=result)
    assert sweeper.get_done() == set()


def test_levels_are_as_they_were_given_last(folder: Path) -> None:
    """1, True and 1.0 are equal, and a script may print them."""
    first = ParamSweeper(folder, [{"a": 1, "b": 2}])
    assert first.get_next() == {"a": 1, "b": 2}
    first.close()
    later = ParamSweeper(folder, [{"b": 2.0, "a": True}])
    later.reset(reset_inprogress=True)
    assert repr(later.get_next()) == "{'b': 2.0, 'a': True}"
    later.close()


def test_a_clock_that_jumps(
    folder: Path, sweeper: ParamSweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(2_000_000_000, 0, -10_000_000))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert sweeper.get_next_batch(2) == SWEEP[:2]
    sweeper.done(SWEEP[0])
    sweeper.cancel(SWEEP[1])
    monkeypatch.undo()
    again = ParamSweeper(folder, SWEEP)
    for found in (sweeper, again):
        entry = found.entry(SWEEP[0])
        assert entry.began is not None
        assert entry.ended is not None
        assert entry.ended < entry.began
        assert entry.took is not None
        assert 0 <= entry.took < 60
        assert "took 0s" in found.explain(SWEEP[0])
    assert again.get_next() == SWEEP[1]
    again.close()


def test_explained(sweeper: ParamSweeper) -> None:
    one = sweeper.get_next()
    assert one is not None
    sweeper.failed(one, "out of paper", retry=True)
    sweeper.skip(one)
    sweeper.reset()
    sweeper.done(one, result=5)
    told = sweeper.explain(one).splitlines()
    assert told[0].startswith("{'a': 1, 'b': 'x'}: done (attempt 1")
    what = [line.split(" ", 4)[4].rpartition(", by process ")[0] for line in told[1:]]
    assert what == [
        "handed out",
        "failed (again): out of paper",
        "skipped",
        "all that were skipped, failed were reset",
        "done, result 5",
    ]
    assert sweeper.explain(SWEEP[3]) == "{'a': 2, 'b': 'y'}: to do"


@pytest.mark.parametrize("arguments", [{"lease": 0}, {"lease": -1}, {"retries": -1}])
def test_numbers_that_cannot_be(folder: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}="):
        ParamSweeper(folder, SWEEP, **arguments)
    assert not folder.exists()


def test_a_damaged_line_of_the_saved_sweep_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ParamSweeper(folder, SWEEP, save_sweeps=True).close()
    path = folder / "sweeps.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "[1]", *lines[2:]]))
    again = ParamSweeper(folder)
    assert again.get_sweeps() == {SWEEP[0], *SWEEP[2:]}
    assert f"{path}, line 2: not a combination; it is passed over" in caplog.text
    again.close()


# -- against a model ----------------------------------------------------------------------------


class Model:
    """A sweep of one script, in the simplest way."""

    def __init__(self, size: int) -> None:
        self.states = ["to do"] * size
        self.failures = [0] * size

    def next(self) -> int | None:
        todo = [at for at, state in enumerate(self.states) if state == "to do"]
        return min(todo, key=lambda at: (self.failures[at], at), default=None)

    def end(self, at: int, state: str) -> None:
        if self.states[at] != "done":
            self.failures[at] += state in ("failed", "again")
            self.states[at] = "to do" if state in ("again", "cancelled") else state

    def reset(self, *also: str) -> None:
        for at, state in enumerate(self.states):
            if state in ("skipped", "failed", *also):
                self.states[at], self.failures[at] = "to do", 0


SIZE = 6
STEPS = st.one_of(
    st.sampled_from([("next",), ("reset",), ("reset", "in progress"), ("other",), ("again",)]),
    st.tuples(
        st.sampled_from(["done", "skipped", "failed", "again", "cancelled"]),
        st.integers(0, SIZE - 1),
    ),
)


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=40)
def test_as_a_model_does(steps: list[tuple[Any, ...]]) -> None:
    """Two users of a folder in turns, and one who opens it anew."""
    combinations = sweep({"n": range(SIZE)})
    model = Model(SIZE)
    with tempfile.TemporaryDirectory() as folder:
        users = [ParamSweeper(folder, combinations, lease=None) for _ in range(2)]
        for step in steps:
            user = users[0]
            ends: dict[str, Callable[..., None]] = {
                "done": user.done,
                "skipped": user.skip,
                "failed": partial(user.failed, retry=False),
                "again": partial(user.failed, retry=True),
                "cancelled": user.cancel,
            }
            if step[0] == "next":
                at = model.next()
                taken = user.get_next()
                assert taken == (None if at is None else combinations[at])
                if at is not None:
                    model.states[at] = "in progress"
            elif step[0] == "reset":
                user.reset(*(True for _ in step[1:]))
                model.reset(*step[1:])
            elif step == ("other",):
                users.reverse()
            elif step == ("again",):
                user.close()
                users[0] = ParamSweeper(folder, combinations, lease=None)
                # For it, nothing is skipped; so all shall see it.
                users[1].close()
                users[1] = ParamSweeper(folder, combinations, lease=None)
                model.states = ["to do" if one == "skipped" else one for one in model.states]
            else:
                ends[step[0]](combinations[step[1]])
                model.end(step[1], step[0])
            for user in users:
                found = [user.entry(one).state.value for one in combinations]
                assert found == model.states
                remaining = {one for one in combinations if model.states[one["n"]] == "to do"}
                assert user.get_remaining() == remaining
                assert user.stats().done == user.get_done()
        for user in users:
            user.close()
