"""The results in a run's model card: what `shelfwise evaluate` found, with the figures of its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shelfwise import artifact
from shelfwise.metrics import Interval
from shelfwise.pipelines import report
from shelfwise.pipelines.evaluation import REPORT_HTML, REPORT_JSON, Evaluation, Intervals, Standing
from shelfwise.pipelines.pages import decimals, percent

# What stands between these two belongs to `shelfwise evaluate`; the rest of the card is its owner's to change.
_BEGIN = "<!-- results: written by shelfwise evaluate, which replaces what stands between these two lines -->"
_END = "<!-- end of results -->"
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_[]|#"} | {"<": "&lt;", "&": "&amp;"})
NOTHING = "–"


def add(run: Path, evaluation: Evaluation) -> None:
    """Write an evaluation of the run's own test part into its card, in the place of an earlier one.

    Raises:
        StorageError: the disk refused; the card is as it was.
    """
    path = run / artifact.CARD
    # As bytes: whatever else the owner wrote into the card, in whatever encoding, stays as it is.
    begin, end = _BEGIN.encode(), _END.encode()
    card = path.read_bytes() if path.is_file() else b""
    before, found, rest = card.partition(begin)
    written = begin + b"\n" + results(evaluation).encode() + end
    if not found:
        card = (before.rstrip() + b"\n\n" if before else b"") + written + b"\n"
    else:
        card = before + written + (rest.partition(end)[2] or b"\n")
    with artifact.atomic_file(path, "wb") as stream:
        stream.write(card)


def results(evaluation: Evaluation) -> str:
    """What an evaluation found, as Markdown: the figures of `report.json` as its page writes them."""
    facts, lines = evaluation.facts, evaluation.standings
    table = [
        f"| | {' | '.join(_plain(line.name) for line in lines)} |",
        f"| --- |{' ---: |' * len(lines)}",
        *(f"| {title} | {' | '.join(map(figure, lines))} |" for title, figure in _FIGURES.items()),
    ]
    shared = ""
    if facts.shared_names is not None:
        shared = f"; {facts.shared_names:,} of these products have a name that training also had"
    told = [
        f"## Results\n\nOn {facts.rows:,} held-out products of {_plain(facts.catalogue)}. Split: {facts.split}, seed "
        f"{facts.split_seed}{shared}. Intervals are 95%.",
        "\n".join(table),
        *([report.about_blend(evaluation)] if evaluation.blend else []),
        _leakage(evaluation),
        f"All of it, with charts and examples: `{artifact.EVALUATION}/{REPORT_HTML}`; for machines: "
        f"`{artifact.EVALUATION}/{REPORT_JSON}`.",
    ]
    if facts.command:
        told.append(f"To make it again:\n\n{_indented(facts.command)}")
    return "\n\n".join(told) + "\n"


def _leakage(evaluation: Evaluation) -> str:
    if evaluation.leakage is None:
        return "Leakage was not looked for: the training rows are out of reach."
    if not evaluation.leakage:
        return "Leakage between training and these products: none found."
    notes = [
        f"- {note.count:,} {_plain(note.title)}{' (serious)' if note.serious else ''}" for note in evaluation.leakage
    ]
    return "Leakage between training and these products:\n\n" + "\n".join(notes)


def _plain(text: str) -> str:
    """Text from files, which is to be neither Markdown nor HTML."""
    return " ".join(text.split()).translate(_MARKDOWN)


def _indented(code: str) -> str:
    """A code block by indentation, which no text in it can end."""
    return "\n".join(f"    {line}" for line in code.splitlines())


def _share(share: float | None, interval: Interval | None) -> str:
    if share is None:
        return NOTHING
    return percent(share) + (f" ({100 * interval.low:.1f} to {percent(interval.high)})" if interval else "")


def _number(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return NOTHING
    return decimals(value, 3) + (f" ({decimals(interval.low, 3)} to {decimals(interval.high, 3)})" if interval else "")


def _bootstrapped(line: Standing, which: Callable[[Intervals], Interval | None]) -> Interval | None:
    return which(line.intervals) if line.intervals else None


def _accepted(line: Standing) -> str:
    return percent(line.decisions.accepted_share) if line.decisions else NOTHING


def _accepted_right(line: Standing) -> str:
    held = line.decisions
    return _share(held.precision, held.interval) if held and held.accepted else NOTHING


def _promise(line: Standing) -> str:
    return f"{percent(line.decisions.promise, 0)}: {line.decisions.verdict}" if line.decisions else NOTHING


_FIGURES: dict[str, Callable[[Standing], str]] = {
    "right answers (accuracy)": lambda line: _share(line.scores.accuracy, line.interval),
    "right among the first three": lambda line: _share(line.scores.top3_accuracy, line.top3_interval),
    "right category": lambda line: _share(
        line.category_accuracy, _bootstrapped(line, lambda found: found.category_accuracy)
    ),
    "right on new names": lambda line: _share(
        line.new_name_accuracy, _bootstrapped(line, lambda found: found.new_name_accuracy)
    ),
    "macro-F1": lambda line: _number(line.scores.macro_f1, _bootstrapped(line, lambda found: found.macro_f1)),
    "weighted F1": lambda line: _number(line.scores.weighted_f1, _bootstrapped(line, lambda found: found.weighted_f1)),
    "expected calibration error": lambda line: (
        NOTHING if line.kind == "majority" else _number(line.scores.ece, _bootstrapped(line, lambda found: found.ece))
    ),
    "accepted without a look": _accepted,
    "of these right": _accepted_right,
    "promise": _promise,
}
