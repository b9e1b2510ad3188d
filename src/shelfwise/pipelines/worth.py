"""Is the language model worth it here, and where: the tests of a comparison put into words."""

from __future__ import annotations

from collections.abc import Sequence

from shelfwise.bootstrap import Difference
from shelfwise.pipelines import cost, pages, report
from shelfwise.pipelines.comparison import Contestant, Pair, Worth
from shelfwise.pipelines.gains import Gain, Gains
from shelfwise.pipelines.pages import SIGNIFICANT

NAMED = 4  # types or categories named in a sentence


def worth(contestants: Sequence[Contestant], pairs: Sequence[Pair]) -> Worth | None:
    """The verdict on the run that gets most right, against the baseline of its own rows and columns.

    None without a language model, alone or in a blend, that has a baseline.
    """
    models = [each for each in contestants if each.standing.kind in ("model", "blend") and each.yardstick is not None]
    if not models:
        return None
    best = max(models, key=lambda each: each.standing.scores.accuracy)
    baseline = next(each for each in contestants if each.title == best.yardstick)
    pair = next(pair for pair in pairs if (pair.first, pair.second) == (best.title, baseline.title))
    return Worth(
        run=best.title,
        verdict=report.compare_with_baseline(best.standing, baseline.standing, pair.paired, best.title),
        macro_f1=_macro_f1(pair.macro_f1),
        where=_where(pair),
        cost=_cost(best, baseline),
    )


def _macro_f1(found: Difference) -> str:
    chance, apart = pages.p_value(found.p_value), abs(found.value)
    than = f"Macro-F1, where every type counts the same, is {apart:.3f} {'higher' if found.value > 0 else 'lower'}"
    if found.p_value >= SIGNIFICANT:
        return f"{than}, which chance explains ({chance})."
    ends = sorted(abs(end) for end in (found.interval.low, found.interval.high))
    return f"{than} ({ends[0]:.3f} to {ends[1]:.3f} with 95% confidence, {chance})."


def _where(pair: Pair) -> str:
    told = [_groups(pair.types, "types")]
    if pair.categories is not None and pair.categories.groups > 1:
        told.insert(0, _groups(pair.categories, "categories"))
    return " ".join(told)


def _groups(gains: Gains, what: str) -> str:
    """Where the first is clearly better or worse, with the first few by name."""
    if not gains.tested:
        return f"None of the {gains.groups:,} {what} has enough products that only one of the two gets right to tell."
    of = f"Of {gains.groups:,} {what}"
    if not gains.better and not gains.worse:
        return f"{of} there is none in which it is clearly better or worse."
    sides = [
        f"clearly {how} in {len(groups):,} ({_named(groups)})" if groups else f"clearly {how} in none"
        for how, groups in (("better", gains.better), ("worse", gains.worse))
    ]
    return f"{of} it is {' and '.join(sides)}."


def _named(groups: Sequence[Gain]) -> str:
    names = "; ".join(group.name for group in groups[:NAMED])  # names hold commas
    return names + (f" and {len(groups) - NAMED:,} more" if len(groups) > NAMED else "")


def _cost(model: Contestant, baseline: Contestant) -> str:
    if model.cost is None or baseline.cost is None:
        return ""
    return (
        f"A million products take it {cost.told(model.cost)}, and the baseline {cost.told(baseline.cost)}, each on the "
        "machine that evaluated it."
    )
