"""The table of several runs: what a line holds, and how it is written for machines and for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shelfwise import __version__, artifact
from shelfwise.data.writer import defuse
from shelfwise.errors import InputError
from shelfwise.pipelines import pages
from shelfwise.pipelines.evaluation import Kind, Part, Verdict

FORMATS = (".json", ".csv", ".md", ".html")
DECIMALS = 4  # in CSV
NOTHING = "–"
# A cell of a Markdown table: nothing in it is to be read as markup, nor as the cell's end.
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]|"} | {"<": "&lt;", "&": "&amp;"})


@dataclass(frozen=True, slots=True)
class Line:
    """One classifier of one run. Its fields' names are the keys of the JSON and the CSV table."""

    run: str
    split: str  # strategy
    input: str  # what is read: "name", "brand+name"
    part: Part
    rows: int  # scored
    train_rows: int | None
    model: str
    kind: Kind
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    macro_f1_low: float | None
    macro_f1_high: float | None
    accuracy_new_names: float | None  # on names that training did not have; None where unknown, or none is
    accuracy_seen_names: float | None
    accuracy_without_brand: float | None  # the brand left out of the text; None where none is read
    ece: float
    promise: float
    accepted_share: float
    accepted_precision: float | None  # None where nothing was accepted, as its interval
    accepted_precision_low: float | None
    accepted_precision_high: float | None
    verdict: Verdict


def _share(share: float | None) -> str:
    return NOTHING if share is None else pages.percent(share)


def _range(low: float | None, high: float | None) -> str:
    """An interval of a share."""
    return "" if low is None or high is None else f"{100 * low:.1f} to {pages.percent(high)}"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table for people."""

    title: str
    value: Callable[[Line], str]
    below: Callable[[Line], str] = lambda _: ""  # smaller, under the value: its interval, its verdict
    numeric: bool = True


COLUMNS = (
    Column("Run", lambda line: line.run, lambda line: line.model, numeric=False),
    Column("Split", lambda line: line.split, lambda line: line.input.replace("+", " + "), numeric=False),
    Column("Trained on", lambda line: NOTHING if line.train_rows is None else f"{line.train_rows:,}"),
    Column("Right", lambda line: _share(line.accuracy), lambda line: _range(line.accuracy_low, line.accuracy_high)),
    Column(
        "Macro-F1",
        lambda line: f"{line.macro_f1:.3f}",
        lambda line: (
            ""
            if line.macro_f1_low is None or line.macro_f1_high is None
            else f"{line.macro_f1_low:.3f} to {line.macro_f1_high:.3f}"
        ),
    ),
    Column("New names", lambda line: _share(line.accuracy_new_names)),
    Column("Known names", lambda line: _share(line.accuracy_seen_names)),
    Column("Brand left out", lambda line: _share(line.accuracy_without_brand)),
    Column("Confidence off by", lambda line: f"{100 * line.ece:.1f} points"),
    Column("Accepted", lambda line: pages.percent(line.accepted_share)),
    Column(
        "Of these right",
        lambda line: _share(line.accepted_precision),
        lambda line: _range(line.accepted_precision_low, line.accepted_precision_high),
    ),
    Column("Promise", lambda line: pages.percent(line.promise, 0), lambda line: line.verdict),
)


def require_writable(path: Path) -> None:
    """Refuse a file that the table can't be written to.

    Raises:
        InputError: the suffix is unknown, or the path is a folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a table is written as {', '.join(FORMATS)}. End the name with one of them.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder. Name the file to write.")


def write(table: Sequence[Line], path: Path) -> None:
    """Write the table as its suffix says: every number for machines (JSON, CSV), or what people read.

    Raises:
        InputError: the suffix is unknown, or the path is a folder.
        StorageError: the disk refused.
    """
    require_writable(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        artifact.write_json(path, {"shelfwise": __version__, "rows": [asdict(line) for line in table]})
    elif suffix == ".csv":
        artifact.write_text(path, _csv(table))
    elif suffix == ".md":
        artifact.write_text(path, _markdown(table))
    else:
        runs = len({line.run for line in table})
        title = f"{runs} runs side by side" if runs > 1 else f"Run {table[0].run}"
        page = pages.render("side_by_side.html", lines=table, columns=COLUMNS, title=title, version=__version__)
        artifact.write_text(path, page)


def _csv(table: Sequence[Line]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(Line.__dataclass_fields__)
    for line in table:
        cells = asdict(line).values()
        writer.writerow(
            [
                "" if cell is None else round(cell, DECIMALS) if isinstance(cell, float) else defuse(str(cell))
                for cell in cells
            ]
        )
    return stream.getvalue()


def _markdown(table: Sequence[Line]) -> str:
    head = f"| {' | '.join(column.title for column in COLUMNS)} |"
    rule = f"| {' | '.join('---:' if column.numeric else '---' for column in COLUMNS)} |"
    return "\n".join([head, rule, *(f"| {' | '.join(_cells(line))} |" for line in table)]) + "\n"


def _cells(line: Line) -> list[str]:
    cells = []
    for column in COLUMNS:
        value, below = (text.translate(_MARKDOWN) for text in (column.value(line), column.below(line)))
        cells.append(f"{value}<br>{below}" if below else value)
    return cells
