"""When to train again: today's traffic held against what the run was trained and measured on.

| rule       | says                                                          | when                                    |
| ---------- | ------------------------------------------------------------- | --------------------------------------- |
| promise    | people agree less often than the confidences say              | 10 points or more, from 50 decisions on |
| waiting    | there are decisions to learn from                             | 5% of the training rows, at least 100   |
| accepted   | fewer answers are sure than on the held-out products          | 10 points or more                       |
| confidence | the confidences are lower, and spread otherwise               | population stability index above 0.25   |
| types      | other categories are asked for (types, where there are none)  | population stability index above 0.25   |
| words      | more names have a word that training never had                | 10 points or more                       |

The first two call for training by themselves, the others when two of them hold; one alone is worth a look. The last
four need 200 products. The population stability index, sum (p - q) ln(p / q), and its limit of 0.25 are the custom of
credit scoring (Siddiqi, Credit Risk Scorecards, 2006); of n products in k groups it is about (k - 1) / n by chance,
which is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from shelfwise.server.monitor import Hour

Tone = Literal["", "yes", "no"]
ENOUGH_PRODUCTS = 200
ENOUGH_DECISIONS = 50
POINTS = 0.10
UNSTABLE = 0.25
WAITING_SHARE, WAITING_LEAST = 0.05, 100
_SMOOTHING = 0.5  # rows added to each group, so that an empty one has a logarithm


@dataclass(frozen=True, slots=True)
class Expected:
    """How the held-out products of the run's evaluation came out, or what training says where there was none."""

    products: int = 0
    accepted_share: float | None = None
    novel_share: float | None = None
    confidence: tuple[int, ...] | None = None  # products by bin
    groups: Mapping[str, int] | None = None  # products by category of the answer
    train_rows: int = 0


@dataclass(frozen=True, slots=True)
class Decided:
    """What people decided since this run was trained."""

    decisions: int = 0
    agreement: float | None = None  # share that accepted the answer
    promised: float | None = None  # mean confidence of the same answers: how often they should have been right


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, and what it found."""

    rule: str
    title: str
    found: str  # in words
    broken: bool
    grave: bool  # calls for training by itself


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do."""

    title: str
    text: str
    tone: Tone
    findings: tuple[Finding, ...]


def judge(seen: Hour, groups: Mapping[str, int], expected: Expected, decided: Decided) -> Verdict:
    """Apply the rules.

    Args:
        seen: the traffic.
        groups: its products by category of the answer.
        expected: what it is held against.
        decided: what reviewers said.
    """
    findings = [*_by_people(decided, expected)]
    if seen.products >= ENOUGH_PRODUCTS:
        findings += [*_by_traffic(seen, groups, expected)]
    broken = [finding for finding in findings if finding.broken]
    grave = [finding for finding in broken if finding.grave]
    if grave or len(broken) >= 2:
        why = " ".join(finding.found for finding in (grave or broken))
        return Verdict("Train again.", why, "no", tuple(findings))
    if broken:
        return Verdict("Worth a look.", f"{broken[0].found} One sign alone can be chance.", "", tuple(findings))
    if seen.products < ENOUGH_PRODUCTS:
        text = f"{seen.products:,} products were classified in these days; from {ENOUGH_PRODUCTS} on they are judged."
        return Verdict("Too little traffic to judge.", text, "", tuple(findings))
    return Verdict(
        "No reason to train again.", "The traffic looks like what the run was measured on.", "yes", tuple(findings)
    )


def _by_people(decided: Decided, expected: Expected) -> list[Finding]:
    found = []
    if decided.decisions >= ENOUGH_DECISIONS and decided.agreement is not None and decided.promised is not None:
        text = (
            f"Reviewers agreed with {decided.agreement:.0%} of {decided.decisions:,} answers; by their confidences "
            f"{decided.promised:.0%} should be right."
        )
        broken = decided.promised - decided.agreement >= POINTS
        found.append(Finding("promise", "Reviewers against confidences", text, broken, True))
    enough = max(WAITING_LEAST, math.ceil(WAITING_SHARE * expected.train_rows))
    if decided.decisions:
        text = f"{decided.decisions:,} decisions were made since the training; from {enough:,} on it is worth it."
        found.append(Finding("waiting", "Decisions to learn from", text, decided.decisions >= enough, True))
    return found


def _by_traffic(seen: Hour, groups: Mapping[str, int], expected: Expected) -> list[Finding]:
    found = []
    if expected.accepted_share is not None and seen.accepted_share is not None:
        text = (
            f"{seen.accepted_share:.0%} of the answers are accepted; of the held-out products "
            f"{expected.accepted_share:.0%} were."
        )
        broken = expected.accepted_share - seen.accepted_share >= POINTS
        found.append(Finding("accepted", "Accepted", text, broken, False))
    if expected.confidence is not None:
        now = {str(i): count for i, count in enumerate(seen.confidence)}
        then = {str(i): count for i, count in enumerate(expected.confidence)}
        # Answers that are surer than expected are no reason to train.
        spread = _spread("confidence", "Spread of confidences", now, then)
        found.append(spread if _mean_bin(seen.confidence) < _mean_bin(expected.confidence) else _harmless(spread))
    if expected.groups:
        found.append(_spread("types", "Mix of types", groups, expected.groups))
    if expected.novel_share is not None and seen.novel_share is not None:
        text = (
            f"{seen.novel_share:.0%} of the names hold a word that training never had; of the held-out products "
            f"{expected.novel_share:.0%} did."
        )
        found.append(Finding("words", "New words", text, seen.novel_share - expected.novel_share >= POINTS, False))
    return found


def _spread(rule: str, title: str, now: Mapping[str, int], then: Mapping[str, int]) -> Finding:
    index = stability_index(now, then)
    how = "unlike" if index > UNSTABLE else "somewhat unlike" if index > UNSTABLE / 2.5 else "like"
    what = title[0].lower() + title[1:]
    text = f"The {what} is {how} that of the held-out products (stability index {index:.2f}, limit {UNSTABLE})."
    return Finding(rule, title, text, index > UNSTABLE, False)


def _harmless(finding: Finding) -> Finding:
    if not finding.broken:
        return finding
    return replace(finding, broken=False, found=f"{finding.found} Answers are surer than theirs.")


def _mean_bin(counts: Sequence[int]) -> float:
    return sum(i * count for i, count in enumerate(counts)) / max(1, sum(counts))


def stability_index(now: Mapping[str, int], then: Mapping[str, int]) -> float:
    """The population stability index of two sets of counts, less what chance alone gives; at least 0."""
    names = sorted({*now, *then})
    if len(names) < 2 or not sum(now.values()) or not sum(then.values()):
        return 0.0
    total_now = sum(now.values()) + _SMOOTHING * len(names)
    total_then = sum(then.values()) + _SMOOTHING * len(names)
    index = 0.0
    for name in names:
        p, q = (now.get(name, 0) + _SMOOTHING) / total_now, (then.get(name, 0) + _SMOOTHING) / total_then
        index += (p - q) * math.log(p / q)
    chance = (len(names) - 1) * (1 / sum(now.values()) + 1 / sum(then.values()))
    return max(0.0, index - chance)
