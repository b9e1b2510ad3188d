"""The one classifier behind both objectives and the baseline: texts in, calibrated predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from shelfwise import artifact
from shelfwise.errors import RunFolderError
from shelfwise.labels import Labels
from shelfwise.records import LEVELS, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shelfwise.calibration import Calibration
    from shelfwise.config import Precision, Role
    from shelfwise.thresholds import Shelves


class Scorer(Protocol):
    """What gives every label a probability: a language model under either objective, or the baseline."""

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) natural logarithms, uncalibrated; each row's exponentials sum to 1."""
        ...


@dataclass(frozen=True, slots=True)
class Classifier:
    """A scorer with its labels and its calibration: what `predict`, `evaluate` and `serve` ask."""

    name: str  # "llama2-7b lora head", for tables
    labels: Labels
    scorer: Scorer
    calibration: Calibration
    text_columns: tuple[Role, ...]
    shelves: Shelves = field(init=False, repr=False, compare=False)  # of `labels`

    def __post_init__(self) -> None:
        from shelfwise.thresholds import Shelves

        object.__setattr__(self, "shelves", Shelves.of(self.labels))

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        which: Literal["model", "baseline"] = "model",
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        verify: bool = True,
    ) -> Classifier:
        """Load a run folder's model, or the baseline that was fitted beside it.

        A run of the model ``baseline`` has only a baseline; asking for its model gives that.

        Args:
            run: a run folder.
            which: the model or its baseline.
            device: "auto", "cpu", "cuda", "cuda:1".
            precision: of a language model's arithmetic; "auto" is the one that it was trained in.
            verify: compare every file's hash with the manifest; False where this was just done.

        Raises:
            RunFolderError: not a run folder, no baseline in it, or no calibration of what was asked for.
            CorruptArtifactError: a file is missing or changed.
        """
        from shelfwise import config as configs
        from shelfwise.calibration import Calibration

        artifact.read_manifest(run, verify=verify)
        config = configs.load(run / artifact.CONFIG)
        labels = Labels.load(run / artifact.LABELS)
        calibrations = Calibration.load_all(run / artifact.CALIBRATION)
        scorer: Scorer
        if which == "baseline" or config.model == "baseline":
            if not (run / artifact.BASELINE).is_dir():
                raise RunFolderError(f"{run}: this run was trained without its baseline (baseline: false).")
            from shelfwise.baseline import Baseline

            calibration = _calibration_of("baseline", calibrations, run)
            scorer = Baseline.load(run / artifact.BASELINE)
            return cls("baseline", labels, scorer, calibration, config.text_columns)
        from shelfwise.modeling.loading import Parts, load_engine
        from shelfwise.prompts import PromptFormat

        calibration = _calibration_of("model", calibrations, run)
        scorer = load_engine(
            config,
            labels,
            PromptFormat.load(run / artifact.PROMPT),
            Parts(run / artifact.MODEL, run / artifact.ADAPTER, run / artifact.TOKENIZER),
            device=device,
            precision=precision,
        )
        base = Path(config.model).name if Path(config.model).is_absolute() else config.model
        name = f"{base} {config.method} {config.objective}"
        return cls(name, labels, scorer, calibration, config.text_columns)

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) uncalibrated natural logarithms in the order of `texts`; identical texts are scored once."""
        import numpy as np

        unique = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        if not unique:
            return np.zeros((0, len(self.labels)), np.float32)
        scored = self.scorer.log_probs(list(unique))
        return scored if len(unique) == len(texts) else scored[[unique[text] for text in texts]]

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) calibrated probabilities; each row sums to 1."""
        return self.calibration.probabilities(self.log_probs(texts))

    def predict(self, texts: Sequence[str], *, top_k: int = 3) -> list[Prediction]:
        """Classify texts.

        Args:
            texts: N normalised texts, as `data.catalogue` joins them from this classifier's `text_columns`.
            top_k: how many labels each answer lists; cut to the number of labels.

        Returns:
            N predictions in the same order; ties go to the label that comes first.
        """
        import numpy as np

        probabilities = self.probabilities(texts)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : max(1, top_k)]
        decided = self.calibration.decide(probabilities, self.shelves)
        predictions = []
        for row, best, level, node in zip(
            probabilities, order, decided.level.tolist(), decided.node.tolist(), strict=True
        ):
            ranked = tuple((self.labels[i], float(row[i])) for i in best.tolist())
            label, confidence = ranked[0]
            predictions.append(
                Prediction(
                    label=label,
                    confidence=confidence,
                    decision="accept" if LEVELS[level] == "type" else "review",
                    level=LEVELS[level],
                    top_k=ranked,
                    path=self.labels.taxonomy.path(label),
                    sure_path=self.shelves.path(level, node),
                )
            )
        return predictions


def _calibration_of(kind: str, calibrations: Mapping[str, Calibration], run: Path) -> Calibration:
    if kind not in calibrations:
        raise RunFolderError(
            f"{run / artifact.CALIBRATION}: holds no calibration of the {kind}, so its confidences would mean nothing. "
            "Copy the run folder again, or train the run again."
        )
    return calibrations[kind]
