"""A language model as the judge of a label audit: trained anew for each fold, by the path of `shelfwise train`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shelfwise import artifact
from shelfwise.config import SplitConfig, TrainConfig
from shelfwise.data.catalogue import Catalogue
from shelfwise.data.split import Splits, make_splits
from shelfwise.errors import InterruptedRunError
from shelfwise.labels import Labels
from shelfwise.pipelines.out_of_fold import Judgement
from shelfwise.pipelines.run import Hooks, Prepared, targets_of
from shelfwise.prompts import PromptFormat
from shelfwise.records import Product


def require_model(config: TrainConfig) -> None:
    """Refuse a model that doesn't exist before anything is read.

    Raises:
        ModelNotFoundError: no base model goes by this name.
    """
    if config.model != "baseline":
        from shelfwise.modeling.registry import require_name  # loads no torch

        require_name(config.model)


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """Fine-tunes a base model on the other folds, then asks it for one."""

    config: TrainConfig
    catalogue: Catalogue  # that the products are of
    workplace: Path  # a folder on the disk that holds one run at a time, which is deleted when its fold is judged
    device: str
    hooks: Hooks

    @property
    def name(self) -> str:
        """The base model's name."""
        base = Path(self.config.model).expanduser()
        return base.name if base.is_dir() else self.config.model

    def judge(self, rest: Sequence[Product], held: Sequence[Product], labels: Labels) -> Judgement:
        """Train and score, as `out_of_fold.Judge` says.

        The model that is asked is the one that was saved and loaded again, as for any run.

        Raises:
            InputError: the configuration does not go with the catalogue or the hardware.
            WorkError: the training failed.
            KeyboardInterrupt: stopped by a signal.
        """
        from shelfwise.modeling.loading import Parts, load_engine
        from shelfwise.pipelines.finetune import finetune

        prepared = self._prepared(rest, labels)
        config = self.config.model_copy(update={"trackers": ()})  # a fold is no run that anyone looks up later
        with artifact.storage_errors(self.workplace):
            self.workplace.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(prefix=".audit-labels-", dir=self.workplace)
        with scratch as folder:
            run = Path(folder) / "run"
            try:
                trained, _ = finetune(config, prepared, run, resume=False, device=self.device, hooks=self.hooks)
            except InterruptedRunError:
                # Its advice is to resume a run that goes with the folder.
                raise KeyboardInterrupt from None
            parts = Parts(run / artifact.MODEL, run / artifact.ADAPTER, run / artifact.TOKENIZER)
            engine = load_engine(trained.config, labels, PromptFormat(), parts, device=self.device)
            self.hooks.note(f"judging {len(held):,} products")
            log_probs = engine.log_probs([product.text for product in held])
        return Judgement(log_probs, np.unique(np.asarray(targets_of(prepared.train, labels), np.int64)))

    def _prepared(self, rest: Sequence[Product], labels: Labels) -> Prepared:
        """The other folds as the data side of a run: a part of them, names kept together, is there to choose by."""
        learned = replace(self.catalogue, products=tuple(rest), rejects=())
        wish = self.config.split
        ids = tuple(product.id for product in rest)
        splits = Splits("grouped", wish.seed, 0, 0, learned.fingerprint, train=ids, validation=(), test=())
        if wish.validation_size:
            cut = make_splits(learned, SplitConfig(seed=wish.seed, test_size=wish.validation_size, validation_size=0))
            splits = replace(splits, validation_size=wish.validation_size, train=cut.train, validation=cut.test)
        train, validation, _, _ = splits.parts(learned)
        return Prepared(learned, splits, labels, train, validation)
