"""From a configuration to a finished run folder: read, split, train, calibrate, blend, save."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from shelfwise import __version__, artifact, processes
from shelfwise import config as configs
from shelfwise.blend import settled
from shelfwise.calibration import Calibration
from shelfwise.config import TrainConfig
from shelfwise.errors import InputError, RunFolderError, StorageError
from shelfwise.pipelines import card, trackers
from shelfwise.pipelines.model_choice import with_model
from shelfwise.pipelines.run import (
    Calibrated,
    Hooks,
    Prepared,
    TrainedRun,
    begin,
    blended,
    calibrate,
    prepare,
    targets_of,
)
from shelfwise.pipelines.stopping import stopped_at_once


def train(
    config: TrainConfig | None,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    strict: bool = False,
    hooks: Hooks | None = None,
) -> TrainedRun:
    """Train a run; under `torchrun` or `accelerate launch` all processes together, the first of which writes.

    Args:
        config: what to do; None only with `resume`, which reads the run folder's own.
        out: the run folder; made when missing.
        resume: go on from the newest intact checkpoint of an unfinished run.
        device: "auto", "cpu", "cuda".
        strict: refuse a split or text columns that leak the answer (`data.leakage`), instead of noting it.
        hooks: progress and notes.

    Raises:
        InputError: the call, the catalogue or the configuration is wrong, or `strict` refuses; nothing was written.
        ModelNotFoundError: no base model goes by this name; nothing was read or written.
        MissingPackageError: a tracker is not installed; nothing was read or written.
        InterruptedRunError: stopped by a signal; what was done is kept, and `resume` goes on from it.
        TrainingError: the loss is no longer a number.
        StorageError: the disk refused; `resume` goes on from the newest checkpoint, or saves what was trained.
    """
    hooks = hooks if hooks and processes.is_first() else Hooks()
    with _together(device):
        config = _settle(config, out, resume)
        _wait_for_all()  # the first process writes into `out` when all have looked at it
        trackers.require(config.trackers, f"{out / artifact.CONFIG}: trackers:" if resume else "trackers:")
        config = with_model(config, device, hooks.note)
        if config.model != "baseline":
            from shelfwise.modeling.registry import require_name  # loads no torch

            require_name(config.model)
        try:
            return _train(config, prepare(config, hooks, strict=strict), out, resume, device, hooks)
        except KeyboardInterrupt:
            if not (out / artifact.CONFIG).is_file():
                raise
            raise stopped_at_once(out) from None
        except StorageError as error:
            if not (out / artifact.CONFIG).is_file():
                raise
            raise StorageError(f"{error} Then go on with: shelfwise train --resume --out {out}") from error


def _together(device: str) -> AbstractContextManager[None]:
    """Several processes of one run meet before the first file is looked at, unless the caller has joined them."""
    processes.forget_launcher_settings()
    if processes.count() == 1:
        return nullcontext()
    from shelfwise.modeling import distributed

    return nullcontext() if distributed.is_joined() else distributed.Joined(device)


def _wait_for_all() -> None:
    if processes.count() > 1:
        from shelfwise.modeling import distributed

        distributed.wait_for_all()


def _train(config: TrainConfig, prepared: Prepared, out: Path, resume: bool, device: str, hooks: Hooks) -> TrainedRun:
    hooks.note(
        f"{len(prepared.train):,} products to train on, {len(prepared.validation):,} to choose by, "
        f"{len(prepared.labels)} inventory types"
    )
    _note_rejects(prepared, hooks)
    if config.classifier == "blend" and not prepared.validation:
        raise InputError(
            "classifier: blend is fitted on validation products, and this split has none. Use a larger "
            "split.validation_size, or classifier: model."
        )
    if config.model == "baseline":
        if not resume and processes.is_first():
            begin(out, config, prepared)
        run = TrainedRun(out, config, 0, 0.0, None, None, len(prepared.train))
        model = None
    else:
        from shelfwise.pipelines.finetune import finetune

        run, model = finetune(config, prepared, out, resume=resume, device=device, hooks=hooks)
    if not processes.is_first():
        return run
    run, calibrations = _beside(run, model, prepared, hooks)
    artifact.write_json(out / artifact.CALIBRATION, Calibration.to_json_all(calibrations))
    artifact.write_text(out / artifact.CARD, card.render(run, prepared))
    artifact.write_manifest(out, facts(run))
    return run


def _beside(
    run: TrainedRun, model: Calibrated | None, prepared: Prepared, hooks: Hooks
) -> tuple[TrainedRun, dict[str, Calibration]]:
    """Fit the baseline beside a language model and weigh the two, or fit it alone; all calibrations there are."""
    calibrations = {"model": model.calibration} if model else {}
    if not run.config.baseline and run.config.model != "baseline":
        return run, calibrations
    hooks.note("fitting the linear baseline on the same products")
    began = time.perf_counter()
    baseline = _fit_baseline(prepared, run.folder)
    calibrations["baseline"] = baseline.calibration
    run = replace(run, baseline_seconds=time.perf_counter() - began)
    both = blended(model, baseline, prepared) if model else None
    if both is not None:
        blend, calibrations["blend"] = both
        artifact.write_json(run.folder / artifact.BLEND, blend.to_json())
        hooks.note(blend.told)
        run = replace(run, blend=blend)
    return run, calibrations


def facts(run: TrainedRun) -> dict[str, object]:
    """What a run's manifest says beside its files' hashes."""
    return {
        "shelfwise": __version__,
        "commit": artifact.source_commit(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "base_model": run.config.model,
        "revision": run.config.revision,
        "method": run.config.method,
        "objective": run.config.objective,
        "steps": run.steps,
        "train_rows": run.train_rows,
        "train_seconds": round(run.seconds, 2),
        "baseline_seconds": None if run.baseline_seconds is None else round(run.baseline_seconds, 2),
        "peak_gib": None if run.peak_bytes is None else round(run.peak_bytes / 2**30, 2),
        "validation": run.best_metric,
        "classifier": answering(run),
        "blend_weight": None if run.blend is None else round(run.blend.weight, 4),
    }


def answering(run: TrainedRun) -> Literal["model", "blend", "baseline"]:
    """Who of a run answers where nobody else is asked for."""
    return "baseline" if run.config.model == "baseline" else settled(run.config.classifier, run.blend, run.folder)


def _settle(config: TrainConfig | None, out: Path, resume: bool) -> TrainConfig:
    """The configuration to run, after checking that `out` may be written."""
    if (out / artifact.MANIFEST).is_file():
        raise RunFolderError(f"{out}: holds a finished run. Choose another --out, or delete it first.")
    unfinished = (out / artifact.CONFIG).is_file()
    if resume:
        if not unfinished:
            raise RunFolderError(f"{out}: there is no run to resume. Leave --resume out to start one.")
        begun = configs.load(out / artifact.CONFIG)
        # The split that the run began with: a catalogue that has changed since is refused, not cut anew.
        return begun.model_copy(update={"split": begun.split.model_copy(update={"file": out / artifact.SPLIT})})
    if unfinished:
        raise RunFolderError(f"{out}: holds an unfinished run. Go on with --resume, or choose another --out.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists and is not empty. Choose another --out.")
    if config is None:
        raise InputError("There is nothing to train: name a catalogue or a --config.")
    return _absolute(config)


def _absolute(config: TrainConfig) -> TrainConfig:
    """The configuration with whole paths, so that the run can be resumed and used from any folder."""
    changes: dict[str, object] = {}
    if config.catalogue is not None:
        changes["catalogue"] = config.catalogue.expanduser().absolute()
    if config.split.file is not None:
        changes["split"] = config.split.model_copy(update={"file": config.split.file.expanduser().absolute()})
    base = Path(config.model).expanduser()
    if base.is_dir():
        changes["model"] = str(base.absolute())
    return config.model_copy(update=changes)


def _note_rejects(prepared: Prepared, hooks: Hooks) -> None:
    rejects = prepared.catalogue.rejects
    if rejects:
        hooks.note(
            f"{len(rejects):,} of {prepared.catalogue.row_count:,} rows can't be used, the first {rejects[0].source}: "
            f"{rejects[0].reason}; for all: shelfwise check {prepared.catalogue.path}"
        )


def _fit_baseline(prepared: Prepared, out: Path) -> Calibrated:
    from shelfwise.baseline import Baseline

    texts = [product.text for product in prepared.train]
    baseline = Baseline.fit(texts, targets_of(prepared.train, prepared.labels), len(prepared.labels))
    with artifact.atomic_folder(out / artifact.BASELINE) as staging:
        baseline.save(staging)
    return calibrate(baseline, prepared)
