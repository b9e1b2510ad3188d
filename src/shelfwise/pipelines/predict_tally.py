"""What a prediction job has done, counted part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FIRST_REJECTS = 5  # of a job, kept for its summary


@dataclass(frozen=True, slots=True)
class Tally:
    """What was done."""

    predicted: int = 0
    rejected: int = 0
    accepted: int = 0
    scored: int = 0
    by_model: Mapping[str, int] = field(default_factory=dict)  # rows that each answered
    first_rejects: tuple[tuple[str, str], ...] = ()  # (source, reason)

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return self.predicted + self.rejected

    def plus(self, other: Tally) -> Tally:
        """Both together; the other came later."""
        by_model = {
            name: self.by_model.get(name, 0) + other.by_model.get(name, 0)
            for name in dict.fromkeys((*self.by_model, *other.by_model))
        }
        return Tally(
            self.predicted + other.predicted,
            self.rejected + other.rejected,
            self.accepted + other.accepted,
            self.scored + other.scored,
            by_model,
            (*self.first_rejects, *other.first_rejects)[:FIRST_REJECTS],
        )

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Tally:
        """From JSON."""
        return cls(
            predicted=int(stored["predicted"]),
            rejected=int(stored["rejected"]),
            accepted=int(stored["accepted"]),
            scored=int(stored["scored"]),
            by_model={str(name): int(rows) for name, rows in stored["by_model"].items()},
            first_rejects=tuple((str(source), str(reason)) for source, reason in stored["first_rejects"]),
        )
