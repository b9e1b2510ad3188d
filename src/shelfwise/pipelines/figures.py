"""The confusion picture as a file. The pages draw their own charts (templates/_charts.html)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from shelfwise.pipelines.details import Grid

if TYPE_CHECKING:
    from PIL import Image, ImageFont

CELL = 92  # pixels
MARGIN = 32
NAME_LENGTH = 40
NAME_SIZE, SHARE_SIZE, LABEL_SIZE = 23, 20, 23
SHOWN = 0.005  # shares under it are left empty
# Okabe and Ito's blue and vermillion (2008, "Color Universal Design"): told apart under every colour blindness.
RIGHT, WRONG = (0, 114, 178), (213, 94, 0)
INK, MUTED, PAPER = (28, 33, 39), (91, 100, 112), (255, 255, 255)


def grid_png(grid: Grid) -> bytes:
    """Draw a confusion grid: right answers blue, wrong ones orange, as shares of each row.

    Returns:
        The bytes of a PNG file.
    """
    from PIL import Image, ImageDraw

    counts = np.array(grid.counts, np.float64)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    names = [name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…" for name in grid.names]
    font, small = _font(NAME_SIZE), _font(SHARE_SIZE)
    left = MARGIN + 2 * LABEL_SIZE + round(max((font.getlength(name) for name in names), default=0))
    slanted = [_text(name, INK, font).rotate(45, Image.Resampling.BICUBIC, expand=True) for name in names]
    top = MARGIN + 2 * LABEL_SIZE + max((each.height for each in slanted), default=0)
    right = max([MARGIN, *(each.width - (len(names) - i) * CELL + CELL // 2 for i, each in enumerate(slanted))])
    size = CELL * len(names)
    picture = Image.new("RGB", (left + size + right, top + size + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    for i, j in zip(*np.nonzero(counts), strict=True):
        x, y = left + int(j) * CELL, top + int(i) * CELL
        draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), fill=_shade(share[i, j], RIGHT if i == j else WRONG))
        if share[i, j] >= SHOWN:
            ink = PAPER if share[i, j] > 0.45 else INK
            draw.text((x + CELL / 2, y + CELL / 2), f"{100 * share[i, j]:.0f}", ink, small, anchor="mm")
    draw.rectangle((left - 1, top - 1, left + size, top + size), outline=MUTED)
    for i, (name, turned) in enumerate(zip(names, slanted, strict=True)):
        draw.text((left - 12, top + (i + 0.5) * CELL), name, INK, font, anchor="rm")
        picture.paste(turned, (left + i * CELL + CELL // 2 - NAME_SIZE // 2, top - 8 - turned.height), turned)
    label = _text(f"true {grid.level}", MUTED, _font(LABEL_SIZE)).rotate(90, expand=True)
    picture.paste(label, (MARGIN // 2, top + (size - label.height) // 2), label)
    about = f"answered {grid.level}  ·  per cent of each row; empty: under 0.5"
    draw.text((left + size / 2, MARGIN), about, MUTED, _font(LABEL_SIZE), anchor="mm")
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _shade(share: float, hue: tuple[int, int, int]) -> tuple[int, int, int]:
    """A cell's colour; the root keeps small shares of a large row visible."""
    strength = float(share) ** 0.5
    red, green, blue = (round(255 - strength * (255 - part)) for part in hue)
    return red, green, blue


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which has Greek, Cyrillic and more, where the machine has it; else Pillow's own Latin letters."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _text(text: str, color: tuple[int, int, int], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    """A line of text on nothing, to be turned."""
    from PIL import Image, ImageDraw

    box = font.getbbox(text)
    image = Image.new("RGBA", (max(1, round(box[2])), max(1, round(box[3]) + 4)), (*PAPER, 0))
    ImageDraw.Draw(image).text((0, 0), text, color, font)
    return image
