from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from shelfwise.bootstrap import Resamples, intervals_of
from shelfwise.calibration import Calibration
from shelfwise.labels import Labels
from shelfwise.metrics import Ranked, accuracy_interval
from shelfwise.pipelines.scoring import Answers, Rows, decisions, majority, standing
from shelfwise.records import LEVELS, Product

LABELS = Labels(("Rice", "Soap", "Tea"))
SURE, UNSURE = LEVELS.index("type"), LEVELS.index("")


def asked(lines: Sequence[tuple[str, str, bool]]) -> tuple[Rows, Answers]:
    """Rows and answers from (true type, answered type, whether it was accepted)."""
    rows = Rows.of([Product(i, f"c.csv:{i + 2}", f"n{i}", true) for i, (true, _, _) in enumerate(lines)], LABELS, None)
    given = np.array([LABELS.index(answered) for _, answered, _ in lines])
    n = len(lines)
    ranked = Ranked(given[:, None], np.full((n, 1), 0.9, np.float32), np.zeros(n, np.float32))
    level = np.array([SURE if accepted else UNSURE for _, _, accepted in lines])
    calibration = Calibration(threshold=0.5, promise=0.9)
    return rows, Answers("model", "m", ranked, calibration, 1.0, level, (given == rows.targets) & (level == SURE))


def test_the_promise_is_judged_type_by_type_with_what_the_rows_can_tell() -> None:
    rows, answers = asked(
        [("Rice", "Rice", True)] * 10
        + [("Rice", "Soap", True)] * 10  # 10 of 20: even the interval's upper end is below 0.9
        + [("Soap", "Soap", True)] * 10
        + [("Tea", "Tea", True)] * 2  # 2 of 3: below 0.9, and far too few to tell
        + [("Rice", "Tea", True)]
        + [("Tea", "Rice", False)] * 30  # not accepted, so no matter
    )
    found = decisions(answers, rows).types
    assert [(each.label, each.accepted, each.right, each.verdict) for each in found] == [
        ("Soap", 20, 10, "broken"),
        ("Rice", 10, 10, "kept"),
        ("Tea", 3, 2, "too few to tell"),
    ]
    assert [each.interval for each in found] == [
        accuracy_interval(10, 20),
        accuracy_interval(10, 10),
        accuracy_interval(2, 3),
    ]
    assert found[0].interval.high < 0.9 < found[2].interval.high


def test_exactly_what_was_promised_is_kept() -> None:
    rows, answers = asked([("Rice", "Rice", True)] * 9 + [("Tea", "Rice", True)])
    found = decisions(answers, rows)
    assert (found.verdict, found.types[0].verdict) == ("kept", "kept")


def test_where_nothing_is_accepted_no_type_is_judged() -> None:
    rows, answers = asked([("Rice", "Rice", False)])
    assert decisions(answers, rows).types == ()


def test_a_standing_has_the_bootstraps_intervals_and_the_majority_none() -> None:
    rows, answers = asked([("Rice", "Rice", True), ("Tea", "Soap", False), ("Soap", "Soap", True)] * 20)
    resamples = Resamples.draw(60)
    found = standing(answers, rows, resamples)
    assert found.intervals == intervals_of(resamples, answers.ranked, rows.targets)
    assert found.intervals is not None
    assert found.intervals.macro_f1.low <= found.scores.macro_f1 <= found.intervals.macro_f1.high
    assert found.intervals.new_name_accuracy is found.intervals.hierarchical_f1 is None
    assert standing(majority(rows), rows, resamples).intervals is None


@pytest.mark.parametrize("new", [[True] * 60, [True, False, True] * 20])
def test_accuracy_on_new_names_has_an_interval_where_there_are_some(new: list[bool]) -> None:
    rows, answers = asked([("Rice", "Rice", True), ("Tea", "Soap", False), ("Soap", "Soap", True)] * 20)
    rows = Rows(rows.products, rows.labels, rows.names, rows.targets, np.array(new))
    found = standing(answers, rows, Resamples.draw(60))
    assert found.intervals is not None
    interval = found.intervals.new_name_accuracy
    assert interval is not None
    assert found.new_name_accuracy is not None
    assert interval.low <= found.new_name_accuracy <= interval.high
