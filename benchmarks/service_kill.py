"""Kill the service at random moments of reviewing and uploading, and look for what was lost, doubled or changed.

    python benchmarks/service_kill.py [--kills 200]

`shelfwise serve` runs the baseline of the packaged sample with an SQLite store and a folder of uploads. Two people
review over HTTP: they accept, correct, skip, settle identical names together, take back, and now and then decide about
a product that the other one has before them. A third uploads a file of --rows rows, waits for its answers and deletes
the job. SIGKILL comes at a random moment, one time in eight while the service is still starting.

After each kill, from the files alone: every confirmed decision is in the record once and says what was asked for;
nothing is there that nobody asked for, and of what was asked for without an answer at most that; items say what the
record says; the database passes its integrity check; every confirmed upload lies there whole, every confirmed deletion
is gone. The next service gets the open requests again, with the same keys, and goes on with the file; its answers have
to equal those of `shelfwise predict`. The first failure ends the script with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

import _bench
from _people import Act, Reviewer, Uploader, digest

ITEMS = 20_000
LONGEST_S = 2.5  # from readiness to the kill
FILES = 3
READY_S = 120.0


class Lives:
    """One store and one folder of uploads, over many lives of the service."""

    def __init__(self, folder: Path, run: Path, files: list[bytes], right: list[pa.Table]) -> None:
        self.store, self.data, self.log = folder / "review.db", folder / "data", folder / "serve.log"
        self._run = run
        self._files = {digest(content) for content in files}
        self._right = right
        shown: list[dict[str, str]] = []
        self.reviewers = [Reviewer("asha", 1, shown), Reviewer("ben", 2, shown)]
        self.uploader = Uploader(files)
        self.in_flight = self.in_flight_stored = self.while_starting = self.resumed = 0

    def live(self, seed: int) -> None:
        """One life of the service, its end, and the checks."""
        random_ = random.Random(seed)
        words = ["serve", str(self._run), "--port", "0", "--store", str(self.store), "--data", str(self.data)]
        with self.log.open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "shelfwise", *words]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        failures: list[BaseException] = []
        people: list[threading.Thread] = []
        try:
            if random_.random() < 1 / 8:
                self.while_starting += 1
                time.sleep(random_.uniform(0, 3))
            else:
                found = re.search(r":(\d+)\s*$", process.stdout.readline())
                assert found is not None, self.log.read_text(encoding="utf-8")[-4000:]
                port = int(found[1])
                _wait_until_ready(port)
                for work in (*(each.review for each in self.reviewers), self.uploader.upload):
                    people.append(threading.Thread(target=_noting, args=(work, port, failures)))
                    people[-1].start()
                time.sleep(random_.uniform(0, LONGEST_S))
        finally:
            process.kill()
            process.wait()
        for person in people:
            person.join()
        if failures:
            raise failures[0]
        self._check_decisions()
        self._check_uploads()

    def _check_decisions(self) -> None:
        asked = [each.notes.open for each in self.reviewers if each.notes.open is not None]
        confirmed = {key: act for each in self.reviewers for key, act in each.notes.done.items()}
        connection = sqlite3.connect(self.store)
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            lines = connection.execute(
                "SELECT id, item_id, action, type, key, batch, undoes, reviewer FROM review_decisions ORDER BY id"
            ).fetchall()
            items = connection.execute(
                "SELECT id, settled_by, settled_type FROM review_items WHERE settled_by IS NOT NULL"
            ).fetchall()
        finally:
            connection.close()
        by_key = {line[4]: line for line in lines}
        assert len(by_key) == len(lines), "a decision was stored twice"
        for key, act in confirmed.items():
            _require_stored(act, by_key[key], by_key)
        batches, open_keys = {line[5] for line in lines}, {act.key for act in asked}
        unknown = batches - confirmed.keys() - open_keys
        assert not unknown, f"nobody asked for {unknown}"
        undone = {line[6] for line in lines}
        standing = {
            line[1]: (line[0], line[3]) for line in lines if line[2] in ("accept", "correct") and line[0] not in undone
        }
        assert standing == {item: (settled_by, settled_type) for item, settled_by, settled_type in items}
        self.in_flight += len(open_keys)
        self.in_flight_stored += len(batches & open_keys)

    def _check_uploads(self) -> None:
        jobs = self.data / "jobs"
        for job in self.uploader.kept:
            if job == self.uploader.open_deletion:
                continue
            state = json.loads((jobs / job / "job.json").read_text(encoding="utf-8"))
            self.resumed += state["status"] == "running" and state["rows_done"] > 0
            assert digest((jobs / job / "input.csv").read_bytes()) in self._files
        for job in self.uploader.deleted:
            assert not (jobs / job / "job.json").exists(), "a deleted upload is back"
        while self.uploader.downloaded:
            number, content = self.uploader.downloaded.pop()
            answered = parquet.read_table(pa.BufferReader(content)).replace_schema_metadata()
            assert answered.equals(self._right[number]), "a file's answers differ from those of an unbroken run"


def _require_stored(act: Act, line: tuple[Any, ...], by_key: dict[str, tuple[Any, ...]]) -> None:
    assert line[2] == act.action, (act, line)
    if act.action == "undo":
        assert act.undoes is not None
        assert line[6] == by_key[act.undoes][0], (act, line)
    else:
        assert line[1] == act.item, (act, line)
        assert act.type is None or line[3] == act.type, (act, line)


def _noting(work: Callable[[int], None], port: int, failures: list[BaseException]) -> None:
    try:
        work(port)
    except BaseException as error:  # told by the thread that waits for this one
        failures.append(error)


def _wait_until_ready(port: int) -> None:
    import urllib.request

    ends_s = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=READY_S).close()
            return
        except OSError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.05)


def make_files(names: list[str], rows: int) -> list[bytes]:
    """CSV files of different names each, so that no answer can be another file's."""
    files = []
    for number in range(FILES):
        lines = [f'{names[i % len(names)].replace(",", " ")} {number} x {i},"{i}"' for i in range(rows)]
        files.append("\n".join(["product,code", *lines, ""]).replace('""', "").encode())
    return files


def fill(store: Path, names: list[str], run: Path) -> None:
    """Put products into the queue, three brands of each name, with the answers of the run."""
    from shelfwise.classifier import Classifier
    from shelfwise.pipelines.review_load import live_item
    from shelfwise.records import Product
    from shelfwise.review import open_store

    asked = [f"{names[i % len(names)]} {i // 3}" for i in range(ITEMS)]
    predictions = Classifier.load(run).predict(asked, top_k=5)
    with open_store(str(store)) as opened:
        opened.add(
            live_item(Product(i, "", name, None, brand=f"brand {i % 3}", text=name), prediction, "baseline")
            for i, (name, prediction) in enumerate(zip(asked, predictions, strict=True))
        )


def expected(run: Path, content: bytes, folder: Path) -> pa.Table:
    """The answers of a run that nobody breaks off."""
    from shelfwise.pipelines.predict import predict
    from shelfwise.server.jobs_work import TOP_K

    source, out = folder / "unbroken.csv", folder / "unbroken.parquet"
    source.write_bytes(content)
    predict(run, source, out, top_k=TOP_K, force=True)
    return parquet.read_table(out).replace_schema_metadata()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=6_000, help="of an uploaded file")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    from shelfwise.config import parse
    from shelfwise.data import sample
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.train import train

    catalogue = Path(sample.__file__).parent / "catalogue.csv"
    names = list(dict.fromkeys(product.name for product in read_catalogue(catalogue).products))
    with tempfile.TemporaryDirectory() as temporary:
        folder, run = Path(temporary), Path(temporary) / "baseline"
        train(parse({"catalogue": str(catalogue), "model": "baseline"}, "benchmark"), run, device="cpu")
        files = make_files(names, options.rows)
        lives = Lives(folder, run, files, [expected(run, content, folder) for content in files])
        fill(lives.store, names, run)
        began_s = time.monotonic()
        for seed in range(options.kills):
            lives.live(seed)
            if seed % 10 == 9:
                decided = sum(len(each.notes.done) for each in lives.reviewers)
                _bench.say(f"{seed + 1} kills, {decided:,} decisions, {lives.uploader.finished} files")
        left = [path.name for path in (lives.data / "jobs").iterdir() if path.is_dir()]
    row = {
        "store": "sqlite",
        "cores": os.cpu_count(),
        "kills": options.kills,
        "while_starting": lives.while_starting,
        "acknowledged": sum(len(each.notes.done) for each in lives.reviewers),
        "conflicts": sum(each.notes.conflicts for each in lives.reviewers),
        "in_flight": lives.in_flight,
        "in_flight_stored": lives.in_flight_stored,
        "repeated": sum(each.notes.repeated for each in lives.reviewers),
        "lost": 0,
        "doubled": 0,
        "uploads": lives.uploader.sent,
        "uploads_finished": lives.uploader.finished,
        "kills_in_a_file": lives.resumed,
        "upload_folders_left": len(left),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    _bench.say(row)
    _bench.say(_bench.write("service_kill", [row], options.out))


if __name__ == "__main__":
    main()
