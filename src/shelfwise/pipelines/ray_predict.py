"""Prediction on a Ray cluster through Ray Data: actors that hold the classifier, and several files out.

    read tasks (one a file) -> parts of rows -> actors: classify, write a file -> counts -> here

Inputs and output lie where every node sees them. A part's files have names that follow from its input alone and appear
by a rename, so a part that is done twice, because its worker died after writing, leaves the same files. Parts that
are there already are not done again: that is what resuming means here.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise import artifact
from shelfwise.config import Arithmetic, Columns
from shelfwise.data.compression import plain_name
from shelfwise.errors import InputError, InterruptedRunError, MissingPackageError, ShelfwiseError, WorkError
from shelfwise.pipelines.predict_inputs import find_inputs, inputs_of
from shelfwise.pipelines.predict_job import Asked, Job, Progress, Settings
from shelfwise.pipelines.predict_parts import parts_folder
from shelfwise.pipelines.predict_summary import PredictionSummary
from shelfwise.pipelines.predict_tally import Tally
from shelfwise.pipelines.ray_worker import FILES, Classify, PartReader, Shape, part_name, read_tally

if TYPE_CHECKING:
    from types import ModuleType

KEY = "job.json"
BLOCK_BYTES = 1  # so that each part is a block of its own, and goes to the next free actor
READER_CPUS = 0.5


@dataclass(frozen=True, slots=True)
class Cluster:
    """How a cluster is used."""

    address: str | None = None  # None: the one that this machine belongs to, else one started here and ended again
    workers: int | None = None  # actors that hold the classifier; None: one for each GPU, else one for every 4 cores
    gpus_each: float | None = None  # None: 1 where the cluster has any
    cpus_each: float = 1.0


def predict_on_ray(
    run: Path,
    source: Path,
    out: Path,
    *,
    top_k: int = 3,
    columns: Columns | None = None,
    which: Asked = "auto",
    precision: Arithmetic = "auto",
    chunk_rows: int = 8192,
    force: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    cluster: Cluster = Cluster(),
    clock: Callable[[], float] = time.perf_counter,
) -> PredictionSummary:
    """Classify every product of one or several files on a Ray cluster.

    Args:
        run: a run folder that every node sees under this path.
        source: as of `predict.predict`; every node sees the files under these paths.
        out: a folder to write, as in ``predictions.parquet``: its suffix gives the format of the files in it. They are
            named after their place in the input, so that their names in order give its rows in order.
        top_k: as of `predict.predict`, as the next four.
        columns: which column plays which role.
        which: who answers.
        precision: of the model's arithmetic.
        chunk_rows: rows of a part, and so of an output file.
        force: replace the folder, and throw away what an unfinished job left.
        resume: go on with an unfinished job of the same call.
        progress: called with the number of rows done, in the order in which parts end.
        cluster: which, and how much of it.
        clock: seconds, monotonic.

    Raises:
        InputError: the call, the input or the run is wrong; told before Ray is started.
        MissingPackageError: Ray is not installed.
        InterruptedRunError: Ctrl-C; finished parts are kept for `resume`.
        WorkError: a part failed; finished ones are kept for `resume`.
    """
    settings = Settings(which, "auto", precision, top_k, columns or Columns(), chunk_rows, force, resume)
    job = Job(run.absolute(), settings, None, clock)
    sources = find_inputs(source.absolute())
    shape = Shape(run.absolute(), settings, sources, parts_folder(out.absolute()), _suffix(out))
    # Killed after it had put the output in its place, and before it had cleared up.
    placed = resume and (shape.folder / KEY).is_file() and not (shape.folder / FILES).is_dir()
    _require_place(out, force or placed)
    plans = [shape.plan(number) for number in range(len(sources))]  # refuses what is wrong before Ray is started
    _begin(shape, {**job.call(), "ray": True, "suffix": shape.suffix, "input": inputs_of(sources)}, out)
    started = clock()
    before = _finished(shape)
    if placed and out.is_dir():
        tally = _sum(before)
        shutil.rmtree(shape.folder)
    else:
        with _connected(cluster) as ray:
            tally = _sum(_run(ray, shape, before, cluster, progress))
        _place(shape, out)
    renamed = {ours: name for plan in plans for ours, name in plan.renamed.items()}
    model = " then ".join(tally.by_model)
    return PredictionSummary.of(
        out,
        out if tally.rejected else None,
        tally,
        model=model,
        about=job.about(),
        renamed=renamed,
        resumed=sum(done.rows for done in before.values()),
        seconds=clock() - started,
    )


def _suffix(out: Path) -> str:
    """The suffix of the files in the folder, compression included: `.csv.gz`."""
    plain = plain_name(out)
    suffix = plain.suffix.lower() + out.name[len(plain.name) :].lower()
    if plain.suffix.lower() not in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet") or suffix.startswith(".parquet."):
        raise InputError(
            f"{out}: on a cluster the output is a folder of many files. End its name with their format, as in "
            "predictions.parquet, predictions.csv or predictions.jsonl.gz."
        )
    return suffix


def _require_place(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: there is a file of this name, and on a cluster the output is a folder.")
    if out.exists() and not force:
        raise InputError(f"{out}: there already is such a folder. Choose another name, or replace it with --force.")


def _begin(shape: Shape, key: Mapping[str, object], out: Path) -> None:
    """Make the folder of the unfinished job, or check that the one that is there is this job's."""
    import json

    path, wanted = shape.folder / KEY, json.loads(json.dumps(key))
    if path.is_file():
        try:
            same = json.loads(path.read_bytes()) == wanted
        except ValueError:
            same = False
        resume, force = shape.settings.resume, shape.settings.force
        if resume and same:
            return
        if not force:
            what = "an unfinished job" if same else "an unfinished job of another call or input"
            mend = "Go on with it with --resume, or start over with --force." if same else "Start over with --force."
            raise InputError(f"{out}: {what} for this output is there. {mend}")
        shutil.rmtree(shape.folder)
    (shape.folder / FILES).mkdir(parents=True, exist_ok=True)
    artifact.write_json(path, wanted)


def _finished(shape: Shape) -> dict[str, Tally]:
    """The parts that are done, by name."""
    return {path.stem: read_tally(path) for path in sorted(shape.folder.glob("part-*.json"))}


def _run(
    ray: ModuleType, shape: Shape, before: Mapping[str, Tally], cluster: Cluster, progress: Progress | None
) -> dict[str, Tally]:
    """Do what is not done; the tally of each part, by name."""
    from ray.data import DataContext, ExecutionOptions
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.execution_options = ExecutionOptions(preserve_order=False)
    workers, gpus = _sizes(ray, cluster)
    done = dict(before)
    rows = sum(tally.rows for tally in done.values())
    if rows and progress is not None:
        progress(rows)
    files = [{"file": number} for number in range(len(shape.sources))]
    # Another share of a CPU than the actors': alike, Ray would melt reading and answering into one, a file an actor.
    parts = ray.data.from_items(files, override_num_blocks=len(files)).flat_map(
        PartReader(shape, frozenset(before)), num_cpus=READER_CPUS
    )
    answered = parts.map(
        Classify,
        fn_constructor_args=(shape,),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cluster.cpus_each,
        num_gpus=gpus,
    )
    try:
        for row in answered.iter_rows():
            name = part_name(row["file"], row["part"])
            done[name] = read_tally(shape.folder / f"{name}.json")
            rows += done[name].rows
            if progress is not None:
                progress(rows)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, InputError):  # the input will be another one when it is mended
            shutil.rmtree(shape.folder, ignore_errors=True)
        if isinstance(cause, ShelfwiseError):
            raise cause from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkError(f"A part failed on the cluster ({reason:.300}). {_kept(rows)}") from error
    except KeyboardInterrupt as error:
        raise InterruptedRunError(f"Interrupted. {_kept(rows)}") from error
    return done


def _kept(rows: int) -> str:
    return f"{rows:,} rows are done and kept: the same call with --resume goes on from there."


def _sum(done: Mapping[str, Tally]) -> Tally:
    """All parts together, in the input's order."""
    total = Tally()
    for name in sorted(done):
        total = total.plus(done[name])
    return total


def _place(shape: Shape, out: Path) -> None:
    """The files become the output, and the rest goes."""
    with artifact.storage_errors(out):
        for staging in (shape.folder / FILES).glob(".*"):  # of workers that died
            staging.unlink(missing_ok=True)
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(shape.folder / FILES, out)
        shutil.rmtree(shape.folder)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[ModuleType]:
    """A connection to the cluster; one that was there before stays."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError("--engine ray needs Ray: pip install 'shelfwise[ray]'") from error
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of a job is told to anyone
    try:
        ray.init(address=cluster.address, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"{cluster.address}: no Ray cluster there ({error}).") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _sizes(ray: ModuleType, cluster: Cluster) -> tuple[int, float]:
    """Actors, and GPUs of each."""
    there = ray.cluster_resources()
    gpus = cluster.gpus_each if cluster.gpus_each is not None else float(there.get("GPU", 0) > 0)
    workers = cluster.workers
    if workers is None:
        workers = int(there["GPU"] // gpus) if gpus else max(1, int(there.get("CPU", 1)) // 4)
    return workers, gpus
