"""A combination of parameters: a dict that sets can hold, and how it is written down.

As text it is one line of JSON that any tool reads, and it comes back as it went in: tuples are
JSON's arrays (there are no lists in a combination, since they cannot be hashed), and what JSON
lacks stands in an object with the key ``$``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any

__all__ = ["HashableDict", "checked", "decode", "encode", "plain", "revived"]

_TAG = "$"
_SIMPLE = (str, int, bool, type(None))


class HashableDict(dict[Any, Any]):
    """A dict that can be hashed, as combinations are: by its items, whatever their order. (execo
    2.8.2)

    Equal to a dict with the same items. One that is in a set must not be changed. Its values must
    be hashable, save dicts, which may hold such values in turn.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        try:
            return hash(frozenset(self.items()))
        except TypeError:  # a plain dict in it
            return hash(frozenset((name, _frozen(value)) for name, value in self.items()))


def _frozen(value: Any) -> Hashable:
    if isinstance(value, dict):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    hash(value)  # the TypeError that dict's own keys would give
    return value  # type: ignore[no-any-return]


def checked(combination: Mapping[Any, Any]) -> HashableDict:
    """The combination, if it can be written down and will be equal to itself when it is read.

    :raises TypeError: for a value of another kind than None, bool, int, float, str, a tuple or a
      dict of these: names its factor. A list is another kind: use a tuple
    :raises ValueError: for a NaN, which is not equal to itself, and a dict within itself
    """
    if not isinstance(combination, Mapping):
        raise TypeError(f"a combination is a dict of factors, not {combination!r:.80}")
    for factor, value in combination.items():
        _check_key(factor, factor)
        _check(factor, value, 0)
    return combination if type(combination) is HashableDict else HashableDict(combination)


def _check(factor: Any, value: Any, depth: int) -> None:
    # Of exactly that type: a subclass (an IntEnum, numpy's float64) would come back as another.
    kind = type(value)
    if kind in _SIMPLE:
        return
    if depth > 50:
        raise ValueError(f"factor {factor!r}: its value is nested too deep")
    if kind is float:
        if math.isnan(value):
            raise ValueError(f"factor {factor!r}: NaN is not equal to itself, use None")
    elif kind is tuple:
        for one in value:
            _check(factor, one, depth + 1)
    elif kind in (dict, HashableDict):
        for key, one in value.items():
            _check_key(factor, key)
            _check(factor, one, depth + 1)
    else:
        raise TypeError(
            f"factor {factor!r}: {value!r:.80} is {_named(kind)}{_way_out(value)}; a combination"
            " holds None, bool, int, float, str, and tuples and dicts of these"
        )


def _check_key(factor: Any, key: Any) -> None:
    if type(key) not in (str, int, float, bool, type(None)) or key != key:
        raise TypeError(
            f"factor {factor!r}: its name, or a key in it, is {key!r:.80}, {_named(type(key))};"
            " these are str, int, float, bool or None"
        )


def _named(kind: type) -> str:
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{'an' if name[:1] in 'aeiou' else 'a'} {name}"


def _way_out(value: Any) -> str:
    if isinstance(value, list):
        return " (write a tuple)"
    if callable(getattr(value, "item", None)):  # numpy's scalars
        return " (write .item() of it)"
    for plain_type in (bool, int, float, str):
        if isinstance(value, plain_type):
            return f" (write {plain_type.__name__}() of it)"
    return ""


def encode(value: Any) -> str:
    """One line of JSON, pure ASCII, for what :func:`checked` lets pass."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False)


def decode(text: str | bytes) -> Any:
    """What was given to :func:`encode`; dicts come as :class:`HashableDict`.

    :raises ValueError: it is no such text
    """
    return revived(json.loads(text))


def plain(value: Any) -> Any:
    """The same of what JSON has."""
    kind = type(value)
    if kind in _SIMPLE:
        return value
    if kind is tuple:
        return [plain(one) for one in value]
    if kind is float:
        return value if math.isfinite(value) else {_TAG: repr(value)}
    if all(type(key) is str for key in value) and _TAG not in value:
        return {key: plain(one) for key, one in value.items()}
    return {_TAG: [[plain(key), plain(one)] for key, one in value.items()]}


def revived(value: Any) -> Any:
    """What was given to :func:`plain`.

    :raises ValueError: it cannot be
    """
    kind = type(value)
    if kind is list:
        return tuple([revived(one) for one in value])
    if kind is not dict:
        return value
    if _TAG not in value:
        for one in value.values():
            if type(one) is list or type(one) is dict:
                return HashableDict({key: revived(one) for key, one in value.items()})
        return HashableDict(value)
    content = value[_TAG]
    if isinstance(content, list) and len(value) == 1:
        return HashableDict({revived(key): revived(one) for key, one in content})
    if content in ("inf", "-inf") and len(value) == 1:
        return float(content)
    raise ValueError(f"not a value of a combination: {value!r:.80}")
