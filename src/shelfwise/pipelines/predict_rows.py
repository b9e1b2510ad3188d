"""Rows of a prediction job on their way in and out, whichever engine does the job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from shelfwise.data.catalogue import text_of
from shelfwise.data.writer import Cell
from shelfwise.pipelines.predict_answers import Answer
from shelfwise.pipelines.predict_plan import Plan
from shelfwise.pipelines.predict_tally import FIRST_REJECTS, Tally
from shelfwise.records import RawRow, Reject


def sort_out(chunk: Iterable[RawRow | Reject], plan: Plan) -> tuple[list[RawRow], list[str], list[Reject]]:
    """The rows that can be classified, the text of each, and the rejected ones; all in the file's order."""
    rows: list[RawRow] = []
    texts: list[str] = []
    rejected: list[Reject] = []
    for row in chunk:
        if isinstance(row, Reject):
            rejected.append(row)
            continue
        text = text_of(row, plan.roles, plan.text_columns)
        if isinstance(text, Reject):
            rejected.append(text)
        else:
            rows.append(row)
            texts.append(text)
    return rows, texts, rejected


def answer_cells(answer: Answer) -> tuple[Cell, ...]:
    """One answer in the order of `predict_plan.ADDED`."""
    p = answer.prediction
    return p.label, p.confidence, p.decision, p.level, p.top_k, p.path, p.sure_path, answer.model


def reject_cells(reject: Reject, columns: Iterable[str]) -> list[Cell]:
    """One reject in the order of `Plan.reject_headings`."""
    return [reject.source, reject.reason, *(reject.values.get(column, "") for column in columns)]


def tally_of(answers: Sequence[Answer], rejected: Sequence[Reject], scored: int) -> Tally:
    """The counts of some rows."""
    return Tally(
        predicted=len(answers),
        rejected=len(rejected),
        accepted=sum(answer.prediction.decision == "accept" for answer in answers),
        scored=scored,
        by_model=dict(Counter(answer.model for answer in answers)),
        first_rejects=tuple((reject.source, reject.reason) for reject in rejected[:FIRST_REJECTS]),
    )
