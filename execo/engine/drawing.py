"""What the pictures share: colours, texts, and how they are saved. matplotlib, without pyplot: no
window, no global state, any thread."""

from __future__ import annotations

import io
import json
import math
import os
import re
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "MARK",
    "OUTCOMES",
    "PALE",
    "PAPER",
    "RASTER",
    "SERIES",
    "STATES",
    "add_boxes",
    "inline_svg",
    "label",
    "legend",
    "level_text",
    "name_levels",
    "natural",
    "new_figure",
    "plain_text",
    "save_picture",
    "set_ticks",
    "tidy",
    "write_whole",
]

INK, PALE, PAPER = "#26282b", "#9aa0a6", "#fefefe"
"""Text and lines; grids and what is not important; the ground. On a dark page others stand in for
them: nothing else in a picture has one of these."""

MARK = "#1f2124"
"""On what has a colour of its own, light or dark."""

RASTER = 3000
"""Bars and cells from which on they are a bitmap in PDF and SVG: what shows ten thousand of them is
slow."""

# Colours of Paul Tol's "bright" scheme, which people with any colour vision tell apart.
_BLUE, _CYAN, _GREEN, _YELLOW = "#4477aa", "#66ccee", "#228833", "#ccbb44"
_RED, _PURPLE, _GREY = "#ee6677", "#aa3377", "#bbbbbb"

OUTCOMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_BLUE, ("ok",)),
    (_CYAN, ("running",)),
    (_RED, ("exit code", "expect", "write")),
    (_YELLOW, ("timeout", "signal", "cancelled", "lost")),
    (_PURPLE, ("connect", "auth", "host key", "spawn")),
)
"""What colour an outcome has: it went well; it runs; the command failed; it was ended; it was never
begun, since the host could not be used."""

STATES: tuple[tuple[str, str, str | None], ...] = (
    ("done", _BLUE, None),
    ("in progress", _CYAN, ">"),
    ("failed", _RED, "x"),
    ("skipped", _GREY, "_"),
    ("to do", "#9aa0a638", None),
)
"""The states of combinations: name, colour (the last one lets the ground through, light or dark),
and a mark for those who see no colours."""

SERIES = (
    *((_BLUE, "o"), (_RED, "s"), (_GREEN, "^"), (_YELLOW, "D")),
    *((_CYAN, "v"), (_PURPLE, "P"), (_GREY, "X")),
)
"""Colour and marker of the curves of a plot."""

_saving = threading.Lock()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches.

    :raises ImportError: matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise ImportError("pictures need matplotlib: pip install 'execo[plot]'") from exc
    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def save_picture(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 300) -> Path:
    """Write a picture to a file: ``.png``, ``.pdf`` or ``.svg``, by its ending. (new)

    As ``figure.savefig(path)``, save that letters in a PDF are TrueType, as journals want them, and
    that the same picture gives the same file, without the date.

    :param dpi: dots per inch of PNG, and of what is a bitmap within PDF and SVG
    :raises ValueError: for a format that matplotlib does not know
    :raises OSError: it cannot be written
    """
    path = Path(path)
    return write_whole(path, _rendered(figure, path.suffix.removeprefix(".").lower() or "png", dpi))


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file: it is there as a whole, or the one of before is.

    :raises OSError: it cannot be written
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_bytes(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return path


_DATES = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}


def _rendered(figure: Figure, form: str, dpi: int, **settings: Any) -> bytes:
    from matplotlib import rc_context

    found = io.BytesIO()
    # The settings are global: one picture at a time.
    own: Any = {"pdf.fonttype": 42, "svg.hashsalt": "execo", **settings}
    with _saving, rc_context(own), warnings.catch_warnings():
        # A level in Chinese: in SVG it is a text all the same, elsewhere one sees the box.
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure.savefig(found, format=form, dpi=dpi, metadata=_DATES.get(form))
    return found.getvalue()


def inline_svg(figure: Figure, name: str) -> str:
    """An SVG element for an HTML page, in whose colours it is: ``var(--ink)``, ``var(--pale)`` and
    ``var(--paper)``.

    :param name: stands before its ids, since those of two pictures on one page may be the same
    """
    text = _rendered(figure, "svg", 150, **{"svg.fonttype": "none"}).decode("utf-8")
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )

    def on_page(tag: re.Match[str]) -> str:
        found = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag[0])
        for colour, variable in ((INK, "ink"), (PALE, "pale"), (PAPER, "paper")):
            found = found.replace(colour, f"var(--{variable})")
        return found

    # In tags alone: texts are as they are.
    return re.sub(r"<[^>]*>", on_page, text)


# -- axes ----------------------------------------------------------------------------------------


def tidy(axes: Axes, grid: Literal["", "x", "y"] = "") -> None:
    """Only the lines that are read; ``grid``: lines at the ticks of ``x`` or ``y``."""
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(PALE)
    axes.tick_params(colors=PALE, labelcolor=INK, labelsize=8)
    if grid:
        axes.grid(axis=grid, color=PALE, alpha=0.35, linewidth=0.6)
        axes.set_axisbelow(True)


def add_boxes(
    axes: Axes,
    boxes: Sequence[tuple[float, float, float, float]],
    colour: str,
    *,
    bitmap: bool,
    order: float = 1,
    outlined: float = math.inf,
) -> None:
    """Rectangles: left, right, low, high. The limits of the axes stay as they are.

    :param bitmap: they are one in vector formats
    :param order: those with a higher one lie on top
    :param outlined: how wide they are at least to have a thin edge, unless they are a bitmap
    """
    import numpy
    from matplotlib.collections import PolyCollection

    left, right, low, high = numpy.asarray(boxes, dtype=float).T
    corners: Any = numpy.stack([left, low, right, low, right, high, left, high], axis=-1)
    axes.add_collection(
        PolyCollection(
            corners.reshape(-1, 4, 2),
            facecolors=colour,
            edgecolors=PAPER,
            linewidths=0 if bitmap else numpy.where(right - left > outlined, 0.4, 0.0),
            antialiased=not bitmap,
            rasterized=bitmap,
            zorder=order,
        ),
        autolim=False,
    )


def set_ticks(axis: Any, places: Sequence[float], texts: Iterable[str], **options: Any) -> None:
    """Ticks with labels that are texts, not formulas."""
    axis.set_ticks(places, list(texts), **options)
    for one in axis.get_ticklabels():
        one.set_parse_math(False)


def name_levels(
    axis: Any, factor: Any, levels: Sequence[Any], room: float, *, upright: bool
) -> None:
    """Ticks at the levels, every so many if there is no room for all: inches for each."""
    if factor is None:
        axis.set_ticks([])
        return
    texts = [level_text(level) for level in levels]
    longest = max(map(len, texts))
    turned = not upright and longest * 0.075 > room and len(texts) > 1
    each = max(1, math.ceil((0.14 if upright or turned else longest * 0.075) / room))
    if not upright and not turned:
        each = 1
    places = range(0, len(texts), each)
    set_ticks(axis, places, [texts[place] for place in places])
    if turned:
        for one in axis.get_ticklabels():
            one.set(rotation=90)
    text = plain_text(factor) + (f" (one in {each} named)" if each > 1 else "")
    label(axis.set_label_text(text, fontsize=9))


def label(text: Any) -> Any:
    """A text of a figure, made to be read as it is: ``$`` is no formula in it."""
    text.set_parse_math(False)
    text.set_color(INK)
    return text


def legend(figure: Figure, handles: Sequence[Any], texts: Sequence[str], columns: int = 6) -> None:
    """What the colours mean, above all axes."""
    found = figure.legend(
        handles,
        texts,
        loc="outside upper right",
        ncols=min(columns, len(handles)),
        frameon=False,
        fontsize=8,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.4,
        labelcolor=INK,
    )
    for text in found.get_texts():
        label(text)


# -- texts ---------------------------------------------------------------------------------------


def plain_text(value: Any, most: int = 40, *, lines: bool = False) -> str:
    """Characters that can be shown, shortened in the middle. Pure.

    :param lines: keep ends of lines; else they are blanks, as other white space is
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > most:
        half = max(1, (most - 1) // 2)
        text = f"{text[:half]}…{text[-half:]}"
    if text.isprintable():
        return text
    return "".join("\n" if lines and one == "\n" else _shown(one) for one in text)


def _shown(character: str) -> str:
    if character.isspace():
        return " "
    # Control characters, directions of writing, halves of surrogates.
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def level_text(level: Any, most: int = 24) -> str:
    """A level of a factor. Pure."""
    if isinstance(level, float) and math.isfinite(level):
        level = f"{level:.6g}"
    elif isinstance(level, dict | tuple):
        level = json.dumps(level, ensure_ascii=False, default=str)
    return plain_text(level, most)


def natural(text: str) -> list[Any]:
    """A key that sorts node2 before node10. Pure."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 20 else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
