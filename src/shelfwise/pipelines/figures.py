"""The confusion picture as a file. The pages draw their own charts (templates/_charts.html)."""

from __future__ import annotations

import io
import warnings

import numpy as np

from shelfwise.pipelines.details import Grid

DPI = 160
CELL_INCHES = 0.58
NAME_LENGTH = 40
# Okabe and Ito's blue and vermillion (2008, "Color Universal Design"): told apart under every colour blindness.
RIGHT, WRONG = "#0072B2", "#D55E00"
INK, MUTED = "#1c2127", "#5b6470"


def grid_png(grid: Grid) -> bytes:
    """Draw a confusion grid: right answers blue, wrong ones orange, as shares of each row.

    Returns:
        The bytes of a PNG file.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    counts = np.array(grid.counts, np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    hue = np.where(np.eye(len(counts), dtype=bool)[..., None], to_rgb(RIGHT), to_rgb(WRONG))
    strength = np.sqrt(share)[..., None]  # small shares of a large row stay visible
    names = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in grid.names]
    size = CELL_INCHES * len(counts)
    figure = Figure(figsize=(size, size))
    axes = figure.add_axes((0, 0, 1, 1))  # the names stand outside; the picture is cut to what is drawn
    axes.imshow(1 - strength * (1 - hue))
    # Names are data: a dollar sign in one starts no formula.
    ticks = range(len(names))
    axes.set_yticks(ticks, names, parse_math=False)
    axes.set_xticks(ticks, names, parse_math=False, rotation=45, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labeltop=True, labelbottom=False, labelcolor=INK, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_ylabel(f"true {grid.level}", color=MUTED)
    axes.set_xlabel(f"answered {grid.level}  ·  per cent of each row; empty: under 0.5", color=MUTED)
    for i, j in zip(*np.nonzero(share >= 0.005), strict=True):
        color = "white" if share[i, j] > 0.45 else INK
        axes.text(j, i, f"{share[i, j]:.0%}".rstrip("%"), ha="center", va="center", fontsize=8, color=color)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # drawn as a box
        figure.savefig(stream, dpi=DPI, format="png", bbox_inches="tight", pad_inches=0.2)
    return stream.getvalue()
