"""What the evaluation and the comparison page share: one look, one way to write a number, escaped text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from shelfwise.pipelines.evaluation import Curve, Standing

if TYPE_CHECKING:
    from jinja2 import Environment

SIGNIFICANT = 0.05
# Of runs that stand beside each other; the first is also that of a single run's model (_style.css).
RUN_COLORS = 6
STYLES = ("_style.css", "_tables.css", "_narrow.css", "_print.css")  # later ones overrule earlier ones
HIGHEST_FLOOR = 0.9


@dataclass(frozen=True, slots=True)
class Line:
    """One classifier as a page shows it."""

    title: str
    color: str  # a CSS value
    standing: Standing
    curve: Curve | None  # None for the majority


def render(template: str, **values: object) -> str:
    """Render a page: one HTML file that loads nothing. Every value is escaped."""
    from markupsafe import Markup

    script = _source("_table.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Our own files, not data. The page's security policy lets no other script run, whatever a product is named.
    style = "\n".join(map(_source, STYLES))
    trusted = {"style": Markup(style), "script": Markup(script), "script_sha256": digest}  # noqa: S704
    return _environment().get_template(template).render(**trusted, **values)


def _source(name: str) -> str:
    return (files("shelfwise.pipelines") / "templates" / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("shelfwise.pipelines", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, decimals=decimals, count=count, duration=duration, heat=heat, css=css, px=px, p_value=p_value
    )
    return environment


def percent(share: float, digits: int = 1) -> str:
    """``0.793`` as ``79.3%``."""
    return f"{100 * share:.{digits}f}%"


def decimals(value: float, digits: int) -> str:
    """A number with so many decimals."""
    return f"{value:.{digits}f}"


def count(number: int) -> str:
    """A whole number with thousands set apart."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Seconds as a reader would say them."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "under 1 ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def p_value(p: float) -> str:
    """A p-value in the usual form: ``p = 0.03``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def css(share: float) -> str:
    """A share as a CSS length."""
    return f"{100 * share:.2f}%"


def px(length: float) -> str:
    """A coordinate of a chart."""
    return f"{length:.1f}"


def heat(share: float) -> str:
    """How strong the colour of a cell of a confusion matrix is, from 0 to 1."""
    return f"{share**0.5:.2f}"  # the root keeps small shares visible


def of_100(shares: Iterable[float]) -> list[str]:
    """Shares as "of 100", with one decimal where whole numbers would hide that they differ."""
    values = [100 * share for share in shares]
    whole = [f"{value:.0f}" for value in values]
    return whole if len(set(whole)) == len(set(values)) else [f"{value:.1f}" for value in values]


def chart_floor(lines: Iterable[Line]) -> float:
    """The lowest accuracy that the coverage chart of these lines needs to draw, a multiple of 0.1."""
    lowest = min((accuracy for line in lines if line.curve for _, accuracy in line.curve.coverage), default=0.0)
    return min(int(10 * lowest) / 10, HIGHEST_FLOOR)
