"""Combinations out of factors: sweep(), geom(), igeom(), and how combinations are written down."""

from __future__ import annotations

import enum
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo.engine import HashableDict, geom, igeom, sweep
from execo.engine.combination import checked, decode, encode


def test_all_combinations_in_the_order_of_the_factors_and_levels() -> None:
    assert sweep({"b": [2, 1], "a": "xy"}) == [
        {"b": 2, "a": "x"},
        {"b": 2, "a": "y"},
        {"b": 1, "a": "x"},
        {"b": 1, "a": "y"},
    ]
    assert [list(one) for one in sweep({"b": [2], "a": "x"})] == [["b", "a"]]


def test_a_level_with_parameters_of_its_own() -> None:
    found = sweep({"size": [1, 2], "kind": {"fast": {}, "best": {"level": [1, 9]}}, "z": range(1)})
    assert [tuple(one.items()) for one in found[:3]] == [
        (("size", 1), ("kind", "fast"), ("z", 0)),
        (("size", 1), ("kind", "best"), ("level", 1), ("z", 0)),
        (("size", 1), ("kind", "best"), ("level", 9), ("z", 0)),
    ]
    assert len(found) == 6


def test_a_factor_without_levels_is_left_out() -> None:
    assert sweep({"a": [], "b": [1]}) == [{"b": 1}]
    assert sweep({}) == [{}]
    assert sweep({"a": {1: {"c": []}, 2: {"c": [1]}}}) == [{"a": 1}, {"a": 2, "c": 1}]


def test_zipped_factors() -> None:
    found = sweep({("nodes", "cores"): [(1, 8), (4, 2)], "kind": ["x"]})
    assert found == [
        {"nodes": 1, "cores": 8, "kind": "x"},
        {"nodes": 4, "cores": 2, "kind": "x"},
    ]
    within = sweep({"kind": {"x": {("a", "b"): [(1, 2)]}, "y": {}}})
    assert within == [{"kind": "x", "a": 1, "b": 2}, {"kind": "y"}]


def test_constraints() -> None:
    found = sweep({"a": range(4), "b": range(4)}, where=lambda c: c["a"] < c["b"])
    assert [(one["a"], one["b"]) for one in found] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 3),
    ]


def test_a_sample_is_chosen_by_the_seed_and_keeps_the_order() -> None:
    every = sweep({"a": range(30), "b": range(30)})
    found = sweep({"a": range(30), "b": range(30)}, sample=20, seed=3)
    assert len(found) == len(set(found)) == 20
    assert found == [one for one in every if one in set(found)]
    assert found == sweep({"a": range(30), "b": range(30)}, sample=20, seed=3)
    assert found != sweep({"a": range(30), "b": range(30)}, sample=20, seed=4)
    assert sweep({"a": range(3)}, sample=20) == sweep({"a": range(3)})
    assert sweep({"a": range(3)}, sample=0) == []


def test_each_combination_is_as_likely_in_a_sample() -> None:
    found = [
        one["a"] for seed in range(2000) for one in sweep({"a": range(10)}, sample=3, seed=seed)
    ]
    counts = [found.count(level) for level in range(10)]
    assert sum(counts) == 6000
    assert min(counts) > 450, counts
    assert max(counts) < 750, counts


def test_repetitions_have_seeds_of_their_own_that_stay() -> None:
    found = sweep({"a": [1, 2]}, repeat=3)
    assert [(one["repetition"], one["a"]) for one in found] == [
        *[(0, 1), (0, 2)],
        *[(1, 1), (1, 2)],
        *[(2, 1), (2, 2)],
    ]
    assert len({one["seed"] for one in found}) == 6
    assert all(0 <= one["seed"] < 1 << 32 for one in found)
    more = sweep({"a": [0, 1, 2]}, repeat=5)
    assert set(found) <= set(more)
    assert not set(found) & set(sweep({"a": [1, 2]}, repeat=3, seed=1))
    assert sweep({"a": [1]}, repeat=0) == []


def test_the_same_in_another_interpreter() -> None:
    source = "from execo.engine import sweep; print(sweep({'a': ['x', 2.5]}, repeat=2, sample=2))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{sweep({'a': ['x', 2.5]}, repeat=2, sample=2)}\n"}


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"size": [[1]]}, TypeError, r"factor 'size': \[1\] is a list \(write a tuple\)"),
        ({"size": [{1}]}, TypeError, r"factor 'size': \{1\} is a set"),
        ({"size": [b"x"]}, TypeError, "factor 'size': b'x' is a bytes"),
        ({"size": [(1, [2])]}, TypeError, r"factor 'size': \[2\] is a list"),
        ({"size": [{"x": {"y": object}}]}, TypeError, "factor 'size': .* is a type"),
        ({"size": [Colour.RED]}, TypeError, "factor 'size': .*Colour.*write int"),
        ({"size": [float("nan")]}, ValueError, "factor 'size': NaN"),
        ({"size": 5}, TypeError, "factor 'size': its levels are a list or a dict, not 5"),
        ({("a", "b"): [1]}, ValueError, "is zipped: each of its levels is a tuple of 2"),
        ({("a", "b"): ["xy"]}, ValueError, "is zipped"),
        ({("a", "b"): [(1, 2, 3)]}, ValueError, "is zipped"),
        ({"a": {1: {"a": [2]}}}, ValueError, "factor 'a' is there twice"),
        ({"a": [1], ("a", "b"): [(1, 2)]}, ValueError, "factor 'a' is there twice"),
        ({b"a": [1]}, TypeError, "factor b'a': its name"),
        ([1], TypeError, "parameters are a dict"),
        ({"a": {1: [2]}}, TypeError, "parameters are a dict"),
    ],
)
def test_what_cannot_be(parameters: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sweep(parameters)


def test_other_arguments_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="sample=-1"):
        sweep({"a": [1]}, sample=-1)
    with pytest.raises(ValueError, match="repeat=-2"):
        sweep({"a": [1]}, repeat=-2)
    for name in ("seed", "repetition"):
        with pytest.raises(ValueError, match=f"{name!r} cannot be a factor"):
            sweep({name: [1]}, repeat=2)


def test_geom() -> None:
    assert geom(1, 16, 5) == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert geom(1, 10, 0) == []
    assert geom(1, 10, 1) == [1.0]
    assert geom(0.1, 10, 2) == [0.1, 10.0]
    assert igeom(1, 100, 8) == [1, 2, 4, 7, 14, 27, 52, 100]
    assert igeom(1, 3, 10) == [1, 2, 3]
    assert igeom(1, 10, 0) == []
    for arguments in ((0, 1, 2), (1, -1, 3)):
        with pytest.raises(ValueError, match="both must be above 0"):
            geom(*arguments)
    with pytest.raises(ValueError, match="num_steps=-1"):
        geom(1, 2, -1)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.just("$") | st.none(), inner)
    ),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """The value, told apart from equal ones of other types."""
    if isinstance(value, tuple):
        return tuple, tuple(map(typed, value))
    if isinstance(value, dict):
        return dict, [(typed(key), typed(one)) for key, one in value.items()]
    return type(value), repr(value)


@given(st.dictionaries(st.text() | st.integers(), values))
def test_a_combination_comes_back_as_it_went_in(combination: dict[Any, Any]) -> None:
    went_in = checked(combination)
    line = encode(went_in)
    assert line.isascii()
    assert "\n" not in line
    came_back = decode(line)
    assert typed(came_back) == typed(went_in)
    assert came_back == combination
    assert hash(came_back) == hash(went_in) == hash(HashableDict(combination))


@given(values)
def test_the_hash_does_not_hang_on_order_nor_on_the_kind_of_dict(value: Any) -> None:
    one, other = HashableDict({"a": value, "b": 1}), HashableDict({"b": 1, "a": value})
    assert one == other
    assert hash(one) == hash(other)
    revived = decode(encode(value))
    assert hash(HashableDict(a=revived)) == hash(HashableDict(a=value))


@pytest.mark.parametrize("text", ['{"$":5}', '{"$":"nan"}', '{"$":[1]}', '{"$":[],"a":1}', "["])
def test_what_is_no_combination_is_not_read_as_one(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(text)


def test_a_dict_within_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with pytest.raises(ValueError, match="factor 'a': its value is nested too deep"):
        sweep({"a": [endless]})
