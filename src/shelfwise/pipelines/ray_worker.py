"""What runs on the nodes of a Ray cluster: reading parts of rows, and actors that classify them and write them down."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shelfwise import artifact
from shelfwise.errors import CorruptArtifactError, WorkError
from shelfwise.pipelines import predict_files
from shelfwise.pipelines.predict_answers import ask_once
from shelfwise.pipelines.predict_job import Job, Settings
from shelfwise.pipelines.predict_plan import Plan, make_plan
from shelfwise.pipelines.predict_rows import answer_cells, reject_cells, sort_out, tally_of
from shelfwise.pipelines.predict_tally import Tally
from shelfwise.records import Reject

FILES = "files"  # the folder that becomes the output


@dataclass(frozen=True, slots=True)
class Shape:
    """A job as every node knows it."""

    run: Path
    settings: Settings
    sources: tuple[Path, ...]
    folder: Path  # of the unfinished job
    suffix: str  # of the output's files

    def plan(self, number: int) -> Plan:
        """How one of the sources is read and written."""
        target = self.folder / FILES / f"part{self.suffix}"
        return make_plan(
            self.run,
            self.sources[number],
            target,
            columns=self.settings.columns,
            force=True,
            resume=False,
            answerer=None,
        )


class PartReader:
    """A read task: one source as parts that are not done yet."""

    def __init__(self, shape: Shape, done: frozenset[str]) -> None:
        self._shape = shape
        self._done = done

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Parts as rows of Ray Data: file, part, and what is in it as JSON."""
        number = int(row["file"])
        plan = self._shape.plan(number)
        rows = iter(plan.stream)
        for part in itertools.count():
            chunk = list(itertools.islice(rows, self._shape.settings.chunk_rows))
            if not chunk:
                return
            if part_name(number, part) in self._done:
                continue
            kept, texts, rejected = sort_out(chunk, plan)
            content = {
                "rows": [list(row.values.values()) for row in kept],
                "texts": texts,
                "rejects": [[r.id, r.source, r.reason, dict(r.values)] for r in rejected],
            }
            yield {"file": number, "part": part, "content": json.dumps(content, ensure_ascii=False).encode()}


class Classify:
    """An actor: holds the classifier, answers one part at a call and writes its files."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._answerer = Job(shape.run, shape.settings, None, lambda: 0.0).loaded()
        self._plans: dict[int, Plan] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Which part is done."""
        number, part = int(row["file"]), int(row["part"])
        plan = self._plans.setdefault(number, self._shape.plan(number))
        content = json.loads(row["content"])
        texts: list[str] = content["texts"]
        rejected = [Reject(*reject) for reject in content["rejects"]]
        answers, scored = ask_once(self._answerer, texts, self._shape.settings.top_k)
        cells = [(*row, *answer_cells(answer)) for row, answer in zip(content["rows"], answers, strict=True)]
        name, files = part_name(number, part), self._shape.folder / FILES
        if not files.is_dir():  # this worker is left over from a call that was stopped, and the job is done
            raise WorkError(f"{files}: the job that this worker belongs to is over.")
        _write(files / f"{name}{self._shape.suffix}", predict_files.part_of(plan, cells, first=True))
        if rejected:
            lines = [reject_cells(reject, plan.stream.columns) for reject in rejected]
            _write(files / f"{name}.rejects.csv", predict_files.rejects_part_of(plan, lines, first=True))
        artifact.write_json(self._shape.folder / f"{name}.json", asdict(tally_of(answers, rejected, scored)))
        return {"file": number, "part": part}


def part_name(number: int, part: int) -> str:
    """Names in order are the parts in the input's order."""
    return f"part-{number:05}-{part:07}"


def read_tally(path: Path) -> Tally:
    """The counts of a finished part.

    Raises:
        CorruptArtifactError: they can't be read.
    """
    try:
        return Tally.of(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(f"{path}: not readable ({error}). Start over with --force.") from error


def _write(path: Path, data: bytes) -> None:
    with artifact.atomic_file(path, "wb") as stream:
        stream.write(data)
