"""What reviewers did, for the monitor page."""

from __future__ import annotations

from dataclasses import dataclass

from shelfwise.review.items import Override
from shelfwise.review.store import MAX_LISTED, Store
from shelfwise.server.monitor_rules import Decided

OVERRIDES = 10  # pairs of types shown
MAX_PAGES = 50  # of settled items that are looked through: 50,000


@dataclass(frozen=True, slots=True)
class People:
    """What reviewers did."""

    there: bool  # whether there is a queue
    settled: int = 0  # items, ever
    decided: Decided = Decided()  # noqa: RUF009  frozen. Since the run was trained: it has not learned from these
    overrides: tuple[Override, ...] = ()

    @classmethod
    def of(cls, store: Store | None, since_s: float) -> People:
        """Read it; blocks.

        Args:
            store: the queue, if there is one.
            since_s: when the run was trained, seconds since 1970. Later decisions are what it can learn from.
        """
        if store is None:
            return cls(False)
        decisions, agreed, promised, after = 0, 0, 0.0, 0
        for _ in range(MAX_PAGES):
            page = store.settled(after)
            for item, decision in page:
                after = item.id
                if decision.at_s > since_s:
                    decisions += 1
                    agreed += decision.action == "accept"
                    promised += decision.confidence
            if len(page) < MAX_LISTED:
                break
        decided = Decided(decisions, agreed / decisions, promised / decisions) if decisions else Decided()
        return cls(True, store.progress().settled, decided, store.overrides(OVERRIDES))
