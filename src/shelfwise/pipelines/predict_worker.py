"""Parts of a prediction job in processes beside it: `python -m shelfwise.pipelines.predict_worker`.

Reading, classifying by the baseline and writing are Python for the most part, of which one process keeps one core busy.
Rows go to a worker as JSON through its standard input, and come back as the bytes that will stand in the output. A
worker ends when its input does, so none outlives the job, be that killed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from shelfwise import errors
from shelfwise.classifier import Classifier
from shelfwise.data.reader import RowStream
from shelfwise.errors import ShelfwiseError, WorkError
from shelfwise.pipelines import predict_files
from shelfwise.pipelines.predict_answers import Alone, Answer, Answerer, ask_once
from shelfwise.pipelines.predict_plan import Plan
from shelfwise.pipelines.predict_rows import answer_cells, sort_out, tally_of
from shelfwise.pipelines.predict_tally import Tally
from shelfwise.records import RawRow, Reject

_SIZE = struct.Struct("<Q")
MAX_FRAME = 1 << 31  # bytes


@dataclass(frozen=True, slots=True)
class Done:
    """A part that is ready to be written down."""

    out: bytes  # rows of the output
    rejected: list[Reject]
    tally: Tally


def done_part(chunk: Iterable[RawRow | Reject], first: bool, plan: Plan, answerer: Answerer, top_k: int) -> Done:
    """Classify a chunk of rows by an answerer whose answers depend on the texts alone.

    Args:
        chunk: rows, and what could not be read as such.
        first: whether it begins the output.
        plan: the job's.
        answerer: who is asked.
        top_k: of the answers.
    """
    rows, texts, rejected = sort_out(chunk, plan)
    answers, scored = ask_once(answerer, texts, top_k)
    return put_down(plan, rows, answers, rejected, scored, first)


def put_down(
    plan: Plan, rows: Sequence[RawRow], answers: Sequence[Answer], rejected: list[Reject], scored: int, first: bool
) -> Done:
    """Rows and their answers as they will stand in the output; `scored` different texts were asked for."""
    cells = [(*row.values.values(), *answer_cells(answer)) for row, answer in zip(rows, answers, strict=True)]
    return Done(predict_files.part_of(plan, cells, first), rejected, tally_of(answers, rejected, scored))


class Worker:
    """A process that does parts of one job. Its methods are for one thread at a time."""

    def __init__(self, run: Path, top_k: int, plan: Plan) -> None:
        """Start it; it loads its classifier when the first part comes, and takes the run folder to be whole.

        Args:
            run: a run folder whose baseline is to answer.
            top_k: of the answers.
            plan: the job's.
        """
        told = {
            "run": str(run),
            "top_k": top_k,
            "source": str(plan.stream.path),
            "columns": plan.stream.columns,
            "roles": dict(plan.roles),
            "text_columns": plan.text_columns,
            "out": str(plan.out),
            "rejects": str(plan.rejects),
            "added": plan.added,
        }
        words = [sys.executable, "-m", __name__]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603  our own
        self._begin = json.dumps(told).encode()

    def do(self, part: tuple[list[RawRow | Reject], bool]) -> Done:
        """Do a part: its rows, and whether it begins the output.

        Raises:
            ShelfwiseError: what went wrong in the process.
            WorkError: the process is gone.
        """
        chunk, first = part
        source, target = self._process.stdout, self._process.stdin
        assert source is not None
        assert target is not None
        try:
            if self._begin:
                _send(target, self._begin)
                self._begin = b""
            _send(target, json.dumps({"first": first, "rows": [_plain(row) for row in chunk]}).encode())
            head = json.loads(_received(source))
            if "error" in head:
                raise _error(*head["error"])
            out = _received(source)
        except (OSError, EOFError) as error:
            status = self._process.wait()
            raise WorkError(
                f"A process that classified some of the rows ended early (status {status}); was there memory for it? "
                "With --workers 1 all is done in one process."
            ) from error
        return Done(out, [Reject(*reject) for reject in head["rejected"]], Tally.of(head["tally"]))

    def close(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()
        self._process.communicate()


def _plain(row: RawRow | Reject) -> list[object]:
    if isinstance(row, Reject):
        return [row.id, row.source, row.reason, dict(row.values)]
    return [row.id, row.source, list(row.values.values())]


def _row(cells: list[Any], columns: Sequence[str]) -> RawRow | Reject:
    if len(cells) == 4:
        return Reject(*cells)
    number, source, values = cells
    return RawRow(number, source, dict(zip(columns, values, strict=True)))


def main() -> None:
    """Answer parts until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the job, which then closes the input
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing that is printed may stand between the frames
    try:
        _serve(source, target)
    except EOFError:
        return
    except BrokenPipeError:  # the job was killed; Python would try again to write what is left of the answer
        os._exit(1)


def _serve(source: IO[bytes], target: IO[bytes]) -> None:
    """Raises EOFError at the end of the input, and BrokenPipeError where nobody waits for an answer."""
    told = json.loads(_received(source))
    server: _Server | None = None
    while True:
        asked = json.loads(_received(source))
        try:
            server = server or _Server(told)
            done = server.do(asked)
        except ShelfwiseError as error:
            _send(target, json.dumps({"error": [type(error).__name__, str(error)]}).encode())
            continue
        rejected = [[r.id, r.source, r.reason, dict(r.values)] for r in done.rejected]
        _send(target, json.dumps({"rejected": rejected, "tally": asdict(done.tally)}).encode())
        _send(target, done.out)


class _Server:
    """The worker's own side of a job."""

    def __init__(self, told: dict[str, Any]) -> None:
        calm_collector()
        self._answerer = Alone(Classifier.load(Path(told["run"]), which="baseline", verify=False))
        self._top_k: int = told["top_k"]
        source, columns = Path(told["source"]), tuple(told["columns"])
        self._plan = Plan(
            sources=(source,),
            stream=RowStream(source, columns, ()),
            roles=told["roles"],
            text_columns=tuple(told["text_columns"]),
            out=Path(told["out"]),
            rejects=Path(told["rejects"]),
            added=tuple(told["added"]),
        )

    def do(self, asked: dict[str, Any]) -> Done:
        """Do one part."""
        chunk = [_row(cells, self._plan.stream.columns) for cells in asked["rows"]]
        return done_part(chunk, asked["first"], self._plan, self._answerer, self._top_k)


def calm_collector() -> None:
    """Let Python look for cycles of garbage seldom: predictions are many, and hold none.

    With the usual 700 objects it looks through what a job remembers over and over: a third of the time.
    """
    gc.set_threshold(200_000, 20, 100)


def _send(target: IO[bytes], data: bytes) -> None:
    target.write(_SIZE.pack(len(data)))
    target.write(data)
    target.flush()


def _received(source: IO[bytes]) -> bytes:
    """The next frame.

    Raises:
        EOFError: there is none, or it is cut off.
    """
    head = source.read(_SIZE.size)
    size = _SIZE.unpack(head)[0] if len(head) == _SIZE.size else -1
    data = source.read(size) if 0 <= size <= MAX_FRAME else b""
    if len(data) != size:
        raise EOFError
    return data


def _error(name: str, message: str) -> ShelfwiseError:
    kind: type[ShelfwiseError] = getattr(errors, name, WorkError)
    return kind(message)


if __name__ == "__main__":
    main()
