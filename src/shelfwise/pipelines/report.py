"""The evaluation as a page that a category manager can read: what it means first, the numbers after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shelfwise.metrics import Paired
from shelfwise.pipelines import pages
from shelfwise.pipelines.details import Details
from shelfwise.pipelines.doubts import SUSPECT_MARGIN
from shelfwise.pipelines.evaluation import Evaluation, Kind, Standing
from shelfwise.pipelines.pages import SIGNIFICANT, Line
from shelfwise.pipelines.report_rows import band_groups, type_rows
from shelfwise.pipelines.robustness import TITLES

SOLID_F1 = 0.8
_COLORS: dict[Kind, str] = {
    "majority": "var(--c-majority)",
    "baseline": "var(--c-baseline)",
    "model": "var(--c-model)",
    "blend": "var(--c-blend)",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the numbers say about the language model, or about what it and the baseline answer together."""

    tone: Literal["yes", "no", "open"]
    title: str
    text: str


def render(evaluation: Evaluation, details: Details) -> str:
    """The page as one HTML document."""
    curves = {curve.kind: curve for curve in details.curves}
    lines = [Line(s.name, _COLORS[s.kind], s, curves.get(s.kind)) for s in evaluation.standings]
    curve_lines = [line for line in lines if line.curve]
    decisions = evaluation.subject.decisions
    types = type_rows(details, decisions.types if decisions else ())
    return pages.render(
        "report.html",
        evaluation=evaluation,
        facts=evaluation.facts,
        details=details,
        headline=headline(evaluation),
        verdict=verdict(evaluation),
        about_blend=about_blend(evaluation),
        lines=lines,
        subject=lines[-1],
        decisions=decisions,
        curve_lines=curve_lines,
        floor=pages.chart_floor(curve_lines),
        bands=band_groups(lines),
        types=types,
        tested_types=sum(row.scores.support > 0 for row in types),
        untested_types=len(details.types) - len(types),
        solid_types=sum(row.scores.f1 >= SOLID_F1 for row in types),
        suspect_margin=SUSPECT_MARGIN,
        perturbations=TITLES,
        unknown_rows=sum(unknown.rows for unknown in evaluation.facts.unknown_types),
    )


def headline(evaluation: Evaluation) -> str:
    """The finding in one sentence."""
    subject, beside = evaluation.subject, _yardstick(evaluation)
    of_subject, of_beside = pages.of_100([subject.scores.accuracy, beside.scores.accuracy])
    name = "the simple baseline" if beside.kind == "baseline" else "always giving the most frequent type"
    if of_subject == of_beside:
        return f"Gets {of_subject} of 100 products right, as {name} does."
    return f"Gets {of_subject} of 100 products right; {name}, {of_beside}."


def _yardstick(evaluation: Evaluation) -> Standing:
    """What the subject stands beside: the baseline, or the majority when there is none or it is the subject."""
    baseline = evaluation.standing("baseline")
    return evaluation.standings[0] if baseline is None or baseline is evaluation.subject else baseline


def verdict(evaluation: Evaluation) -> Verdict:
    """Whether the language model is worth it, by McNemar's test on the same rows."""
    subject, baseline = evaluation.subject, evaluation.standing("baseline")
    if subject.kind == "baseline":
        return Verdict(
            "open",
            "Is a language model worth it here?",
            "This run is the simple baseline itself. Train a language model on the same split to see what it adds.",
        )
    if baseline is None or evaluation.against_baseline is None:
        return Verdict(
            "open",
            "Is the language model worth it here?",
            "This run was trained without its baseline, so there is nothing to hold its numbers against.",
        )
    name = "The blend of language model and baseline" if subject.kind == "blend" else "The language model"
    return compare_with_baseline(subject, baseline, evaluation.against_baseline, name)


def about_blend(evaluation: Evaluation) -> str:
    """How the blend was made, whether the run answers with it, and what it gains here; empty without one."""
    blend, model = evaluation.standing("blend"), evaluation.standing("model")
    if evaluation.blend is None or evaluation.against_model is None or blend is None or model is None:
        return ""
    paired, n = evaluation.against_model, blend.scores.n
    more, chance = paired.gains - paired.losses, pages.p_value(paired.p_value)
    if more:
        found = f"{abs(more):,} {'more' if more > 0 else 'fewer'} right than the language model alone ({chance})"
    else:
        found = "as many right as the language model alone"
    who = "The run answers with the blend." if blend is evaluation.subject else "The run answers with the model alone."
    return f"{evaluation.blend.told} {who} Of these {n:,} products the blend gets {found}."


def compare_with_baseline(
    model: Standing, baseline: Standing, paired: Paired, name: str = "The language model"
) -> Verdict:
    """The verdict on a model that has a baseline beside it.

    Args:
        model: the model's line.
        baseline: the baseline's, on the same rows.
        paired: the test between them, the model first.
        name: what to call the model at the start of a sentence.
    """
    more, n, chance = paired.gains - paired.losses, model.scores.n, pages.p_value(paired.p_value)
    than = f"Of {n:,} products it gets {abs(more):,} {'more' if more > 0 else 'fewer'} right than the baseline"
    if paired.p_value >= SIGNIFICANT:
        if more:
            found = f"{than}, a difference that chance explains ({chance})."
        else:
            found = f"Of {n:,} products it gets as many right as the baseline."
        return Verdict("open", f"{name} is not shown to be worth it here.", found + _cost(model, baseline))
    found = f"{than}, more than chance explains ({chance}).{_cost(model, baseline)}"
    if more > 0:
        return Verdict("yes", f"{name} is worth it here.", found)
    return Verdict("no", f"{name} is not worth it here.", found)


def _cost(model: Standing, baseline: Standing) -> str:
    if not model.seconds or not baseline.seconds:
        return ""
    ratio = model.seconds / baseline.seconds
    if ratio >= 1.5:
        return f" It takes {ratio:,.1f} times as long." if ratio < 10 else f" It takes {ratio:,.0f} times as long."
    return " It takes about as long." if ratio > 0.67 else " It is the faster of the two."
