"""The lines of ``events.jsonl``, as :mod:`~execo.engine.load` reads them.

They are put together here and not by ``json``, which takes three times as long: each process has
two, and whatever they take is taken from the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any

__all__ = [
    "begin_line",
    "combination_line",
    "cut_text",
    "end_line",
    "finish_line",
    "kept_text",
    "quoted",
    "start_line",
    "text_line",
]

quoted = encode_basestring_ascii
"""A text as JSON has it, pure ASCII."""


def _date(at: float | None) -> str:
    """To the microsecond."""
    return "null" if at is None else f"{at:.6f}"


def start_line(
    number: int,
    at: float | None,
    command: str,
    *,
    name: str | None = None,
    host: str | None = None,
    action: int | None = None,
    combination: int | None = None,
) -> str:
    """A process has started.

    :param command: JSON, see :data:`quoted`, :func:`kept_text` and :func:`cut_text`; so is ``name``
    """
    line = f'{{"do":"start","n":{number},"at":{_date(at)},"cmd":{command}'
    if name is not None:
        line += f',"name":{name}'
    if host is not None:
        line += f',"host":{quoted(host)}'
    if action is not None:
        line += f',"in":{action}'
    if combination is not None:
        line += f',"for":{combination}'
    return line + "}"


def end_line(
    number: int,
    at: float | None,
    outcome: str,
    *,
    code: int | None,
    why: str | None = None,
    sizes: Sequence[int] | None = None,
    outputs: Mapping[str, str] | None = None,
    cut: bool = False,
) -> str:
    """A process has ended.

    :param sizes: bytes of its stdout and stderr
    :param outputs: the short ones, by the names of their streams
    """
    line = f'{{"do":"end","n":{number},"at":{_date(at)},"outcome":{quoted(outcome)}'
    if code is not None:
        line += f',"code":{code}'
    if why is not None:
        line += f',"why":{quoted(why)}'
    if sizes is not None:
        line += f',"sizes":[{sizes[0]},{sizes[1]}]'
    if outputs:
        for stream, text in outputs.items():
            line += f',"{stream}":{quoted(text)}'
    return line + (',"cut":true}' if cut else "}")


def begin_line(number: int, at: float | None, name: str, parent: int | None) -> str:
    """An action has begun.

    :param name: JSON, as that of :func:`start_line`
    """
    line = f'{{"do":"begin","a":{number},"at":{_date(at)},"name":{name}'
    return line + ("}" if parent is None else f',"in":{parent}}}')


def finish_line(number: int, at: float | None, failed: int) -> str:
    """An action has ended; so many of its processes have failed."""
    return f'{{"do":"finish","a":{number},"at":{_date(at)},"failed":{failed}}}'


def text_line(number: int, text: str) -> str:
    """What :func:`kept_text` refers to."""
    return f'{{"do":"text","n":{number},"is":{quoted(text)}}}'


def kept_text(number: int) -> str:
    """A text that has a line of its own."""
    return f'{{"is":{number}}}'


def cut_text(text: str, size: int) -> str:
    """The beginning of a text of this size."""
    return f'{{"cut":{size},"text":{quoted(text)}}}'


def combination_line(number: int, combination: Any) -> str:
    """What ``for`` refers to.

    :param combination: made plain
    """
    return json.dumps({"do": "combination", "n": number, "is": combination}, separators=(",", ":"))
