"""The differences of two texts, line by line, in time that does not depend on how many there are.

:mod:`difflib` alone is quadratic where many lines differ: minutes for two outputs of megabytes.
So it is given only what lies between lines that stand once in each text (the patience method), and
of that only what is small; the rest counts as replaced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

__all__ = ["unified"]

_SMALL = 40_000
"""Pairs of lines that difflib may be given at once."""

Block = tuple[int, int, int]


def unified(old: str, new: str, old_name: str, new_name: str, context: int = 3) -> str:
    """A unified diff, as ``diff -u`` writes it; empty if there is no difference.

    :param old: a text whose lines end with a newline
    :param new: another one
    :param old_name: for its first lines
    :param new_name: likewise
    :param context: lines around each difference
    """
    import difflib

    first, second = _lines(old), _lines(new)
    blocks: list[Block] = []
    for i, j, size in _blocks(first, second):
        if blocks and blocks[-1][0] + blocks[-1][2] == i and blocks[-1][1] + blocks[-1][2] == j:
            i, j, more = blocks.pop()  # two that touch are one, else hunks come apart there
            size += more
        blocks.append((i, j, size))

    class Matcher(difflib.SequenceMatcher[str]):
        def get_matching_blocks(self) -> list[difflib.Match]:
            return [difflib.Match(*block) for block in [*blocks, (len(first), len(second), 0)]]

    # What compares is above: this only makes hunks of it.
    matcher = Matcher(None, "", "")
    text = []
    for codes in matcher.get_grouped_opcodes(context):
        (_, i, _, j, _), (_, _, i_end, _, j_end) = codes[0], codes[-1]
        text.append(f"@@ -{_span(i, i_end)} +{_span(j, j_end)} @@\n")
        for tag, a, a_end, b, b_end in codes:
            if tag == "equal":
                text += [f" {_whole(line)}" for line in first[a:a_end]]
                continue
            text += [f"-{_whole(line)}" for line in first[a:a_end]]
            text += [f"+{_whole(line)}" for line in second[b:b_end]]
    head = f"--- {old_name}\n+++ {new_name}\n" if text else ""
    return head + "".join(text)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _whole(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _span(begin: int, end: int) -> str:
    size = end - begin
    # An empty one is counted from the line before it.
    start = begin + 1 if size else begin
    return str(start) if size == 1 else f"{start},{size}"


def _blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[Block]:
    """Runs of lines that are in both, in order, as get_matching_blocks() gives them."""
    low, most = 0, min(len(a), len(b))
    while low < most and a[low] == b[low]:
        low += 1
    high = 0
    while high < most - low and a[-1 - high] == b[-1 - high]:
        high += 1
    if low:
        yield 0, 0, low
    i, j = low, low
    a_end, b_end = len(a) - high, len(b) - high
    for x, y in [*_anchors(a, b, low, a_end, b_end), (a_end, b_end)]:
        yield from _small(a, b, i, x, j, y)
        if x < a_end:
            yield x, y, 1
        i, j = x + 1, y + 1
    if high:
        yield a_end, b_end, high


def _small(
    a: Sequence[str], b: Sequence[str], i: int, i_end: int, j: int, j_end: int
) -> Iterator[Block]:
    """Between two anchors."""
    if i >= i_end or j >= j_end or (i_end - i) * (j_end - j) > _SMALL:
        return
    import difflib

    matcher = difflib.SequenceMatcher(None, a[i:i_end], b[j:j_end], autojunk=False)
    for x, y, size in matcher.get_matching_blocks():
        if size:
            yield i + x, j + y, size


def _anchors(
    a: Sequence[str], b: Sequence[str], low: int, a_end: int, b_end: int
) -> list[tuple[int, int]]:
    """Lines that stand once in each: the longest sequence of them that is in order in both."""
    count_a, count_b = Counter(a[low:a_end]), Counter(b[low:b_end])
    places = {b[j]: j for j in range(low, b_end) if count_b[b[j]] == 1}
    # The longest increasing subsequence, by patience: the tops of the piles stay sorted.
    tops: list[int] = []
    at_top: list[tuple[int, int]] = []
    before: dict[tuple[int, int], tuple[int, int] | None] = {}
    for i in range(low, a_end):
        line = a[i]
        if count_a[line] != 1 or line not in places:
            continue
        j = places[line]
        pile = bisect_left(tops, j)
        before[i, j] = at_top[pile - 1] if pile else None
        tops[pile : pile + 1] = [j]
        at_top[pile : pile + 1] = [(i, j)]
    found: list[tuple[int, int]] = []
    one = at_top[-1] if at_top else None
    while one is not None:
        found.append(one)
        one = before[one]
    return found[::-1]
