"""From a configuration to a finished run folder: read, split, train, calibrate, save."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from shelfwise import __version__, artifact
from shelfwise import config as configs
from shelfwise.calibration import Calibration
from shelfwise.config import TrainConfig
from shelfwise.errors import InputError, RunFolderError
from shelfwise.pipelines import card
from shelfwise.pipelines.run import Hooks, Prepared, TrainedRun, begin, calibrate, prepare, targets_of


def train(
    config: TrainConfig | None,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    hooks: Hooks | None = None,
) -> TrainedRun:
    """Train a run.

    Args:
        config: what to do; None only with `resume`, which reads the run folder's own.
        out: the run folder; made when missing.
        resume: go on from the newest intact checkpoint of an unfinished run.
        device: "auto", "cpu", "cuda".
        hooks: progress and notes.

    Raises:
        InputError: the call, the catalogue or the configuration is wrong; nothing was written.
        InterruptedRunError: stopped by a signal; a checkpoint was kept.
        TrainingError: the loss is no longer a number.
        StorageError: the disk refused.
    """
    hooks = hooks or Hooks()
    config = _settle(config, out, resume)
    prepared = prepare(config)
    hooks.note(
        f"{len(prepared.train):,} products to train on, {len(prepared.validation):,} to choose by, "
        f"{len(prepared.labels)} inventory types"
    )
    if config.model == "baseline":
        begin(out, config, prepared)
        run = TrainedRun(out, config, 0, 0.0, None, None, len(prepared.train))
        model_calibration = None
    else:
        from shelfwise.pipelines.finetune import finetune

        run, model_calibration = finetune(config, prepared, out, resume=resume, device=device, hooks=hooks)
    calibrations = {"model": model_calibration} if model_calibration else {}
    if run.config.baseline or run.config.model == "baseline":
        hooks.note("fitting the linear baseline on the same products")
        calibrations["baseline"] = _fit_baseline(prepared, out)
    artifact.write_json(out / artifact.CALIBRATION, Calibration.to_json_all(calibrations))
    artifact.write_text(out / artifact.CARD, card.render(run, prepared))
    artifact.write_manifest(out, facts(run))
    return run


def facts(run: TrainedRun) -> dict[str, object]:
    """What a run's manifest says beside its files' hashes."""
    return {
        "shelfwise": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "base_model": run.config.model,
        "revision": run.config.revision,
        "method": run.config.method,
        "objective": run.config.objective,
        "steps": run.steps,
        "train_rows": run.train_rows,
        "train_seconds": round(run.seconds, 2),
        "peak_gib": None if run.peak_bytes is None else round(run.peak_bytes / 2**30, 2),
        "validation": run.best_metric,
    }


def _settle(config: TrainConfig | None, out: Path, resume: bool) -> TrainConfig:
    """The configuration to run, after checking that `out` may be written."""
    if (out / artifact.MANIFEST).is_file():
        raise RunFolderError(f"{out}: holds a finished run. Choose another --out, or delete it first.")
    begun = (out / artifact.CONFIG).is_file()
    if resume:
        if not begun:
            raise RunFolderError(f"{out}: there is no run to resume. Leave --resume out to start one.")
        return configs.load(out / artifact.CONFIG)
    if begun:
        raise RunFolderError(f"{out}: holds an unfinished run. Go on with --resume, or choose another --out.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists and is not empty. Choose another --out.")
    if config is None:
        raise InputError("There is nothing to train: name a catalogue or a --config.")
    if config.catalogue is not None:
        config = config.model_copy(update={"catalogue": config.catalogue.expanduser().absolute()})
    return config


def _fit_baseline(prepared: Prepared, out: Path) -> Calibration:
    from shelfwise.baseline import Baseline

    texts = [product.text for product in prepared.train]
    baseline = Baseline.fit(texts, targets_of(prepared.train, prepared.labels), len(prepared.labels))
    with artifact.atomic_folder(out / artifact.BASELINE) as staging:
        baseline.save(staging)
    return calibrate(baseline, prepared)
