"""The one classifier behind both objectives, the baseline and the blend: texts in, calibrated predictions out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from shelfwise import artifact
from shelfwise.errors import RunFolderError
from shelfwise.labels import Labels
from shelfwise.records import LEVELS, Prediction, Which

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shelfwise.blend import Blend
    from shelfwise.calibration import Calibration
    from shelfwise.config import Arithmetic, Role, TrainConfig
    from shelfwise.thresholds import Shelves


IN_CACHE = 512  # rows of probabilities at once, which are gone over several times


class Scorer(Protocol):
    """What gives every label a probability: a language model under either objective, the baseline, or both together."""

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) natural logarithms, uncalibrated; each row's exponentials sum to 1."""
        ...


@runtime_checkable
class Starter(Protocol):
    """A scorer whose work goes on by itself, on a GPU."""

    def start(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Begin; what comes back waits for what `log_probs` gives. It may be called in another thread, and once."""
        ...

    def warm(self) -> None:
        """Do what the first texts would have to wait for."""
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
    _thresholds: NDArray[np.float64] = field(init=False, repr=False, compare=False)  # (C,) of the calibration

    def __post_init__(self) -> None:
        from shelfwise.thresholds import Shelves

        object.__setattr__(self, "shelves", Shelves.of(self.labels))
        object.__setattr__(self, "_thresholds", self.calibration.thresholds(self.labels))

    @classmethod
    def load(
        cls,
        run: Path,
        *,
        which: Which = "auto",
        device: str = "auto",
        precision: Arithmetic = "auto",
        plain: bool = False,
        verify: bool = True,
    ) -> Classifier:
        """Load who answers of a run folder: its model, the baseline that was fitted beside it, or both as a blend.

        Args:
            run: a run folder.
            which: who is to answer; "auto" is what the run itself decided (`answering`).
            device: "auto", "cpu", "cuda", "cuda:1".
            precision: of a language model's arithmetic; "auto" is the one that it was trained in.
            plain: a language model as transformers and PEFT compute it; what faster ways are held against.
            verify: compare every file's hash with the manifest; False where this was just done.

        Raises:
            RunFolderError: not a run folder, or it has no baseline, no blend or no calibration of what was asked for.
            CorruptArtifactError: a file is missing or changed.
        """
        from shelfwise import config as configs
        from shelfwise.calibration import Calibration

        artifact.read_manifest(run, verify=verify)
        config = configs.load(run / artifact.CONFIG)
        labels = Labels.load(run / artifact.LABELS)
        calibrations = Calibration.load_all(run / artifact.CALIBRATION)
        who = answering(run, config, which)
        if who != "model" and not (run / artifact.BASELINE).is_dir():
            raise RunFolderError(f"{run}: this run was trained without its baseline (baseline: false).")
        for kind in ("model", "baseline", "blend") if who == "blend" else (who,):
            if kind not in calibrations:
                raise RunFolderError(
                    f"{run / artifact.CALIBRATION}: holds no calibration of the {kind}, so its confidences would mean "
                    "nothing. Copy the run folder again, or train the run again."
                )

        def made(kind: str, name: str, scorer: Scorer) -> Classifier:
            return cls(name, labels, scorer, calibrations[kind], config.text_columns)

        def baseline() -> Classifier:
            from shelfwise.baseline import Baseline

            return made("baseline", "baseline", Baseline.load(run / artifact.BASELINE))

        def model() -> Classifier:
            base = Path(config.model).name if Path(config.model).is_absolute() else config.model
            scorer = _engine(run, config, labels, device, precision, plain)
            return made("model", f"{base} {config.method} {config.objective}", scorer)

        if who != "blend":
            return model() if who == "model" else baseline()
        from shelfwise.blend import Blend, BlendScorer

        both = BlendScorer(model(), baseline(), Blend.load(run / artifact.BLEND))
        return made("blend", f"{both.model.name} + baseline", both)

    def log_probs(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(N, C) uncalibrated natural logarithms in the order of `texts`; identical texts are scored once."""
        return self.start_log_probs(texts)()

    def start_log_probs(self, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
        """Begin with some texts; what comes back waits for what `log_probs` gives, in any thread."""
        import numpy as np

        unique = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        if not unique:
            return lambda: np.zeros((0, len(self.labels)), np.float32)
        wait = _started(self.scorer, list(unique))
        if len(unique) == len(texts):
            return wait
        return lambda: wait()[[unique[text] for text in texts]]

    def warm(self) -> None:
        """Do now what the first texts would have to wait for; some seconds with a model on a GPU, else nothing."""
        if isinstance(self.scorer, Starter):
            self.scorer.warm()

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
        return self.start(texts, top_k=top_k)()

    def start(self, texts: Sequence[str], *, top_k: int = 3) -> Callable[[], list[Prediction]]:
        """Begin with some texts; what comes back waits for what `predict` gives, in any thread.

        A GPU is at work on them meanwhile, so the next texts can be started before the answers to these are told.
        """
        scored = self.start_log_probs(texts)

        def predictions() -> list[Prediction]:
            log_probs = scored()
            return [
                prediction
                for start in range(0, len(log_probs), IN_CACHE)
                for prediction in self._told(log_probs[start : start + IN_CACHE], max(1, top_k))
            ]

        return predictions

    def _told(self, log_probs: NDArray[np.float32], top_k: int) -> Iterator[Prediction]:
        """Predictions from (N, C) uncalibrated natural logarithms."""
        import numpy as np

        from shelfwise import metrics

        probabilities = self.calibration.probabilities(log_probs)
        order = metrics.top(probabilities, top_k)
        shares = np.take_along_axis(probabilities, order, axis=1)
        decided = self.calibration.decide(probabilities, self.shelves, self._thresholds)
        shelves, names = self.shelves, np.array(self.labels.names, dtype=object)
        places = list(zip(decided.level.tolist(), decided.node.tolist(), strict=True))
        sure = {place: shelves.path(*place) for place in set(places)}
        for best, ranked, of_best, place in zip(
            order[:, 0].tolist(), names[order].tolist(), shares.tolist(), places, strict=True
        ):
            level = LEVELS[place[0]]
            yield Prediction(
                label=ranked[0],
                confidence=of_best[0],
                decision="accept" if level == "type" else "review",
                level=level,
                top_k=tuple(zip(ranked, of_best, strict=True)),
                path=shelves.paths[best],
                sure_path=sure[place],
            )


def _started(scorer: Scorer, texts: Sequence[str]) -> Callable[[], NDArray[np.float32]]:
    """What waits for a scorer's answers; of one that can't be started, they are there already."""
    if isinstance(scorer, Starter):
        return scorer.start(texts)
    scored = scorer.log_probs(texts)
    return lambda: scored


def answering(run: Path, config: TrainConfig, which: Which = "auto") -> Literal["model", "blend", "baseline"]:
    """Who answers of a run.

    Args:
        run: the run folder.
        config: its configuration, whose `classifier` decides where `which` is "auto".
        which: who was asked for.

    Raises:
        RunFolderError: a language model or a blend is asked for, and there is none.
        CorruptArtifactError: `blend.json` can't be read.
    """
    from shelfwise.blend import settled

    if config.model == "baseline" and which in ("model", "blend"):
        what = "no language model" if which == "model" else "no language model to blend with"
        raise RunFolderError(
            f"{run}: this run is a baseline and has {what}. Ask its baseline, or train a run of a language model."
        )
    if which == "baseline" or config.model == "baseline":
        return "baseline"
    if which == "model":
        return "model"
    return settled(config.classifier if which == "auto" else "blend", blend_of(run), run)


def blend_of(run: Path) -> Blend | None:
    """How a run's model and baseline are weighed; None where it has no blend.

    Raises:
        CorruptArtifactError: `blend.json` can't be read.
    """
    from shelfwise.blend import Blend

    path = run / artifact.BLEND
    return Blend.load(path) if path.is_file() else None


def _engine(run: Path, config: TrainConfig, labels: Labels, device: str, precision: Arithmetic, plain: bool) -> Scorer:
    """A run's language model, ready to score."""
    from shelfwise.modeling.loading import Parts, load_engine
    from shelfwise.prompts import PromptFormat

    return load_engine(
        config,
        labels,
        PromptFormat.load(run / artifact.PROMPT),
        Parts(run / artifact.MODEL, run / artifact.ADAPTER, run / artifact.TOKENIZER),
        device=device,
        precision=precision,
        plain=plain,
    )
