"""Combinations of parameters out of factors and their levels."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .combination import HashableDict, checked, encode

__all__ = ["geom", "igeom", "sweep"]

REPETITION = "repetition"
SEED = "seed"


def sweep(
    parameters: Mapping[Any, Any],
    *,
    where: Callable[[HashableDict], object] | None = None,
    sample: int | None = None,
    repeat: int | None = None,
    seed: int = 0,
) -> list[HashableDict]:
    """All combinations of the levels of some factors. (execo 2.8.2; what is named is new.)

    ::

        sweep({"size": [1, 2], "algorithm": {"fast": {}, "best": {"level": [1, 9]}}})

    gives six: (size 1, algorithm fast), (1, best, level 1), (1, best, level 9), (2, fast), ...
    They come in the order of the factors and levels as given, the first factor the slowest. Pure;
    the same arguments give the same combinations on any machine.

    :param parameters: factor -> its levels: an iterable; or a dict, level -> the parameters of
      a sweep of its own, which that level alone has. A factor without levels is left out. A factor
      whose name is a tuple of names is *zipped*: each of its levels is a tuple of as many
      values, ``{("nodes", "cores"): [(1, 8), (4, 2)]}``
    :param where: is given each combination; those for which it is false are left out
    :param sample: so many of all, chosen by ``seed``, in the order that they have there; all
      of them if they are fewer
    :param repeat: each combination so many times, with two more factors: ``repetition`` from 0 on
      and ``seed``, 32 bits that hang on the combination, the repetition and ``seed`` alone: more
      repetitions, or more levels, leave those of before as they are. All combinations come once
      before the first comes again, so that what changes on the machines meanwhile meets all alike.
    :param seed: chooses another sample, and other seeds
    :raises TypeError: levels that are none; a value that a combination cannot hold (see
      :func:`~execo.engine.ParamSweeper`), by its factor
    :raises ValueError: a zipped level of another length; a factor that is named twice; a negative
      number of samples or repetitions
    """
    for name, number in (("sample", sample), ("repeat", repeat)):
        if number is not None and number < 0:
            raise ValueError(f"{name}={number}: it cannot be negative")
    found = (checked(one) for one in _product(list(_factors(parameters)), {}))
    chosen = found if where is None else (one for one in found if where(one))
    combinations = list(chosen) if sample is None else _sampled(chosen, sample, seed)
    return combinations if repeat is None else _repeated(combinations, repeat, seed)


_Level = tuple[dict[Any, Any], list["_Factor"]]
_Factor = Sequence[_Level]
"""Each level: what it sets, and the factors that it alone has."""


def _factors(parameters: Any) -> Iterator[_Factor]:
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters are a dict, factor -> levels, not {parameters!r:.80}")
    for factor, levels in parameters.items():
        if isinstance(levels, Mapping):
            made = [(_named(factor, one), list(_factors(sub))) for one, sub in levels.items()]
        elif isinstance(levels, Iterable):
            made = [(_named(factor, one), []) for one in levels]
        else:
            raise TypeError(f"factor {factor!r}: its levels are a list or a dict, not {levels!r}")
        if made:
            yield made


def _named(factor: Any, level: Any) -> dict[Any, Any]:
    if not isinstance(factor, tuple):
        return {factor: level}
    if not isinstance(level, Sequence) or isinstance(level, str) or len(level) != len(factor):
        raise ValueError(
            f"factor {factor!r} is zipped: each of its levels is a tuple of {len(factor)} values,"
            f" not {level!r:.80}"
        )
    return dict(zip(factor, level, strict=True))


def _product(factors: list[_Factor], so_far: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    if not factors:
        yield so_far
        return
    for values, own in factors[0]:
        twice = so_far.keys() & values.keys()
        if twice:
            raise ValueError(f"factor {min(twice, key=str)!r} is there twice, in {so_far!r:.80}")
        yield from _product(own + factors[1:], {**so_far, **values})


def _sampled(found: Iterable[HashableDict], count: int, seed: int) -> list[HashableDict]:
    """One pass, without a list of all: there may be millions."""
    chance = random.Random(f"sample {seed}")
    kept: list[tuple[int, HashableDict]] = []
    for at, one in enumerate(found):
        if len(kept) < count:
            kept.append((at, one))
        elif (place := chance.randrange(at + 1)) < count:
            kept[place] = (at, one)
    return [one for _, one in sorted(kept, key=lambda pair: pair[0])]


def _repeated(combinations: list[HashableDict], times: int, seed: int) -> list[HashableDict]:
    for one in combinations:
        for name in (REPETITION, SEED):
            if name in one:
                raise ValueError(f"with repeat=, {name!r} cannot be a factor: {one!r:.80}")
    return [
        HashableDict(one, **{REPETITION: at, SEED: _seed_of(one, at, seed)})
        for at in range(times)
        for one in combinations
    ]


def _seed_of(combination: HashableDict, repetition: int, seed: int) -> int:
    items = sorted(encode(pair) for pair in combination.items())
    text = f"{seed} {repetition} {items}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def geom(range_min: float, range_max: float, num_steps: int) -> list[float]:
    """So many floats between two, both included, each in the same ratio to the one before.
    (execo 2.8.2)

    :raises ValueError: one of them is not above 0, or a negative number of steps
    """
    if num_steps < 0:
        raise ValueError(f"num_steps={num_steps}: it cannot be negative")
    if num_steps == 0:
        return []
    if range_min <= 0 or range_max <= 0:
        raise ValueError(f"from {range_min} to {range_max}: both must be above 0")
    if num_steps == 1:
        return [float(range_min)]
    ratio = (range_max / range_min) ** (1 / (num_steps - 1))
    inner = [float(range_min * ratio**step) for step in range(1, num_steps - 1)]
    return [float(range_min), *inner, float(range_max)]


def igeom(range_min: int, range_max: int, num_steps: int) -> list[int]:
    """As :func:`geom`, rounded to ints, each once, sorted: they may be fewer. (execo 2.8.2)"""
    return sorted({round(step) for step in geom(range_min, range_max, num_steps)})
