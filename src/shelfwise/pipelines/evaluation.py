"""What an evaluation found: the types behind `report.json`, its pages and `compare`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from shelfwise.blend import Blend
from shelfwise.bootstrap import Intervals as Intervals
from shelfwise.data.perturb import Perturbation
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.hierarchy import HierarchyScores
from shelfwise.metrics import Bin, Interval, Paired, Scores, accuracy_interval

FORMAT = 1
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
CONFUSION_CSV = "confusion.csv"
CONFUSION_PNG = "confusion.png"
PER_TYPE_CSV = "per_type.csv"
PREDICTIONS = "predictions.parquet"
MAX_BYTES = 64 << 20  # of report.json

Kind = Literal["majority", "baseline", "model", "blend"]
Part = Literal["test", "all labelled rows"]


Verdict = Literal["kept", "broken", "nothing accepted"]
TypeVerdict = Literal["kept", "broken", "too few to tell"]
Group = Literal["names", "brand", "frequency", "length"]


@dataclass(frozen=True, slots=True)
class Band:
    """Some of the rows that have something in common, and how a classifier fares on them."""

    group: Group  # what they have in common
    title: str  # "names that training had", "20 to 99 training rows"
    n: int  # rows
    accuracy: float
    interval: Interval  # of the accuracy; Wilson's


@dataclass(frozen=True, slots=True)
class LeakageNote:
    """One kind of leakage between the test rows and what the run was trained on (`data.leakage`)."""

    kind: str
    title: str  # in plain words; follows the count
    count: int
    serious: bool  # whether `--strict` refuses it
    examples: tuple[str, ...]  # the first few


@dataclass(frozen=True, slots=True)
class TypePromise:
    """What became of the accepted answers of one inventory type."""

    label: str  # as answered
    accepted: int  # rows
    right: int  # of the accepted
    interval: Interval  # of the share of right ones; Wilson's
    verdict: TypeVerdict  # kept: the share is the promise or more; broken: it is less, beyond chance (exact test)


@dataclass(frozen=True, slots=True)
class LevelDecisions:
    """Rows whose type was not sure enough, but this level above it was."""

    level: Literal["sub_category", "category"]
    accepted: int  # rows
    accepted_share: float  # of all rows
    precision: float  # share of the accepted that are right at this level; 0 when none is accepted
    interval: Interval  # of the precision
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Decisions:
    """What became of the answers at the thresholds that the run chose on validation."""

    promise: float  # the precision that accepted answers were to have
    threshold: float  # of all types that validation rows do not hold to more
    stricter_types: int  # types that they do: by a threshold of the type, or of its category
    accepted: int  # rows
    accepted_share: float
    precision: float  # share of the accepted that are right; 0 when none is
    interval: Interval  # of the precision
    verdict: Verdict
    above: tuple[LevelDecisions, ...]  # sub-category, then category; empty without a taxonomy
    types: tuple[TypePromise, ...] = ()  # those with an accepted answer, most accepted first


@dataclass(frozen=True, slots=True)
class Standing:
    """One classifier's line in the table."""

    kind: Kind
    name: str  # "smollm2-135m lora head", "baseline", "most frequent type"
    scores: Scores
    interval: Interval  # of the accuracy
    category_accuracy: float | None  # right category, whatever the type; None without a taxonomy
    hierarchy: HierarchyScores | None  # how far wrong the mistakes are; None without a taxonomy
    new_name_accuracy: float | None  # on rows whose name training did not have; None where unknown or none is left
    decisions: Decisions | None  # None for the majority
    seconds: float | None  # of scoring all rows, without loading; None for the majority
    intervals: Intervals | None = None  # None for the majority, and in reports of earlier versions
    bands: tuple[Band, ...] = ()
    ece_before: float | None = None  # of the uncalibrated confidences; None for the majority, and in earlier reports

    @property
    def top3_interval(self) -> Interval:
        """95% confidence interval of the top-3 accuracy."""
        return accuracy_interval(round(self.scores.top3_accuracy * self.scores.n), self.scores.n)


@dataclass(frozen=True, slots=True)
class UnknownType:
    """An inventory type of the catalogue that the run was never taught."""

    label: str
    rows: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Where the numbers come from."""

    run: str  # name of the run folder
    date: str | None
    catalogue: str  # name of the file
    fingerprint: str  # of its contents
    part: Part
    rows: int  # scored
    unlabelled: int  # rows of the catalogue left out for having no inventory type
    rejected: int  # rows of the catalogue that can't be used
    unknown_types: tuple[UnknownType, ...]  # counted as wrong; most rows first
    shared_names: int | None  # rows whose name training also had; None where the training rows are out of reach
    n_labels: int
    text_columns: tuple[str, ...]
    split: str  # strategy
    split_seed: int
    training_seed: int
    versions: dict[str, str]
    hardware: str = ""  # "Intel(R) Xeon(R) Platinum 8481C, 2 cores; NVIDIA H100 80GB HBM3"
    command: str = ""  # lines that make the run and this evaluation again
    train_rows: int | None = None  # products that the run was trained on; None where its manifest does not say


@dataclass(frozen=True, slots=True)
class Drop:
    """What one kind of perturbation costs a classifier, on the rows that it applies to."""

    perturbation: Perturbation
    n: int  # rows
    before: float  # accuracy on their names as they are
    after: float  # and on the perturbed names
    after_interval: Interval
    drop: float  # before minus after
    interval: Interval  # of the drop


@dataclass(frozen=True, slots=True)
class TypeDrop:
    """What all perturbations together cost one inventory type."""

    label: str
    n: int  # perturbed names
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Robustness:
    """How one classifier takes perturbed names."""

    kind: Kind
    name: str
    drops: tuple[Drop, ...]  # in the order of `perturb.KINDS`; kinds that apply to no row are left out
    worst_types: tuple[TypeDrop, ...]  # most lost first


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation's numbers."""

    folder: Path  # where its files stand
    facts: Facts
    standings: tuple[Standing, ...]  # majority, then whatever of baseline, model and blend the run has; `subject` last
    against_baseline: Paired | None  # the subject first; None where there is no baseline beside it
    robustness: tuple[Robustness, ...] = ()  # of all but the majority, where asked for
    leakage: tuple[LeakageNote, ...] | None = None  # None where the training rows are out of reach
    blend: Blend | None = None  # how the run's blend was made; None where it has none
    against_model: Paired | None = None  # the blend first, then the language model alone; None without a blend

    @property
    def subject(self) -> Standing:
        """Who answers of the run: its model, or its blend; the baseline of a baseline run."""
        return self.standings[-1]

    def standing(self, kind: Kind) -> Standing | None:
        """The line of this kind, if there is one."""
        return next((standing for standing in self.standings if standing.kind == kind), None)

    def to_json(self) -> dict[str, object]:
        """What `report.json` holds: everything but the folder."""
        return {
            "format": FORMAT,
            "facts": asdict(self.facts),
            "standings": [asdict(standing) for standing in self.standings],
            "against_baseline": None if self.against_baseline is None else asdict(self.against_baseline),
            "robustness": [asdict(each) for each in self.robustness],
            "leakage": None if self.leakage is None else [asdict(each) for each in self.leakage],
            "blend": None if self.blend is None else asdict(self.blend),
            "against_model": None if self.against_model is None else asdict(self.against_model),
        }

    @classmethod
    def load(cls, folder: Path) -> Evaluation:
        """Read an evaluation folder's `report.json`.

        Raises:
            CorruptArtifactError: it can't be read as a report of this version.
        """
        # A report travels between people and versions, so its every field is checked as those of a config are.
        from pydantic import TypeAdapter, ValidationError

        path = folder / REPORT_JSON
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES:,} bytes")
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            evaluation = TypeAdapter(cls).validate_python({**stored, "folder": folder})
            if len(evaluation.standings) < 2:
                raise ValueError("no classifier in it")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            reason = f"{error.error_count()} wrong fields" if isinstance(error, ValidationError) else str(error)
            raise CorruptArtifactError(
                f"{path}: not a readable report ({reason}). Write it again with: shelfwise evaluate"
            ) from error
        return evaluation


@dataclass(frozen=True, slots=True)
class Curve:
    """One classifier's confidence against its accuracy, for the charts."""

    kind: Kind
    name: str
    bins: tuple[Bin, ...]  # the reliability diagram
    coverage: tuple[tuple[float, float], ...]  # (share of rows, accuracy among them), surest rows first
    before: tuple[Bin, ...] = ()  # the reliability diagram of the uncalibrated confidences; () where there are none
