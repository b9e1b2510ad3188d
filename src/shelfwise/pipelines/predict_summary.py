"""What one prediction job did, for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shelfwise.pipelines.predict_tally import Tally
from shelfwise.records import Reject


@dataclass(frozen=True, slots=True)
class PredictionSummary:
    """What one prediction job did."""

    out: Path
    rejects: Path | None  # the file, of several outputs their folder; None: no row was rejected
    model: str
    rows: int  # data rows of the input; each is predicted or rejected
    predicted: int
    rejected: int
    scored: int  # texts that were asked for; one of the last `predict.REMEMBERED_TEXTS` is answered from memory
    accepted: int  # predictions whose confidence keeps the run's promise; the others are to be reviewed
    seconds: float  # reading, scoring and writing, without loading the model; of this call alone
    first_rejects: tuple[Reject, ...]
    renamed: Mapping[str, str]  # added columns whose names the input already has, to what they became
    by_model: Mapping[str, int]  # rows that each classifier answered
    resumed: int = 0  # rows that an earlier call had done
    files: int = 1  # outputs written
    about: str = ""  # how a blend was made, in words; empty where none answers

    @classmethod
    def of(
        cls,
        out: Path,
        rejects: Path | None,
        tally: Tally,
        *,
        model: str,
        about: str = "",
        renamed: Mapping[str, str],
        resumed: int,
        seconds: float,
    ) -> PredictionSummary:
        """The summary of a finished job."""
        return cls(
            out=out,
            rejects=rejects,
            model=model,
            rows=tally.rows,
            predicted=tally.predicted,
            rejected=tally.rejected,
            scored=tally.scored,
            accepted=tally.accepted,
            seconds=seconds,
            first_rejects=tuple(Reject(0, source, reason) for source, reason in tally.first_rejects),
            renamed=renamed,
            by_model=tally.by_model,
            resumed=resumed,
            about=about,
        )

    @property
    def accepted_share(self) -> float:
        """Accepted rows of the predicted ones, in [0, 1]; 0 when nothing was predicted."""
        return self.accepted / self.predicted if self.predicted else 0.0

    @property
    def rows_per_s(self) -> float:
        """Mean rate of this call."""
        return (self.rows - self.resumed) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """The summary as one JSON document."""
        return {
            "out": str(self.out),
            "rejects": str(self.rejects) if self.rejects else None,
            "model": self.model,
            "rows": self.rows,
            "predicted": self.predicted,
            "rejected": self.rejected,
            "scored": self.scored,
            "accepted": self.accepted,
            "accepted_share": round(self.accepted_share, 4),
            "seconds": round(self.seconds, 3),
            "rows_per_s": round(self.rows_per_s, 1),
            "first_rejects": [{"source": reject.source, "reason": reject.reason} for reject in self.first_rejects],
            "renamed": dict(self.renamed),
            "by_model": dict(self.by_model),
            "resumed": self.resumed,
            "files": self.files,
            "about": self.about,
        }
