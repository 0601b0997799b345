"""What a figure shows: its colours at places that are given as data."""

from __future__ import annotations

import io
from typing import Any

import numpy
from matplotlib.figure import Figure
from matplotlib.image import imread

__all__ = ["Shown"]


class Shown:
    """A figure as it is drawn, 200 dots per inch."""

    def __init__(self, figure: Figure) -> None:
        figure.set_dpi(200)
        found = io.BytesIO()
        figure.savefig(found, format="png", dpi=200)
        found.seek(0)
        self.pixels = (numpy.asarray(imread(found))[:, :, :3] * 255).round().astype(int)
        self.axes = figure.axes[0]

    def at(self, x: float, y: float) -> str:
        """The colour there: ``#4477aa``."""
        across, up = self.axes.transData.transform((x, y))
        return "#{:02x}{:02x}{:02x}".format(*self.pixels[-1 - int(up), int(across)])

    def count(self, colour: str) -> int:
        """How many dots have it."""
        wanted: Any = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        return int((self.pixels == wanted).all(axis=2).sum())
