"""Killing a reviewing process at a random moment, and what must be true of the store afterwards.

Run as a script, this file is the process to be killed: it loads rows, decides, corrects, skips and takes back, tells
each request on standard output before it is made, and acknowledges it after it is committed.

    python tests/support/kills.py STORE SEED
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shelfwise.review import ConflictError, Decision, Item, open_store
from shelfwise.review.items import NewItem
from shelfwise.review.store import Store

TESTS = Path(__file__).resolve().parents[1]
READY = "ready"
REVIEWER = "asha"
ROWS = 30  # that the process loads at a time


@dataclass
class Kills:
    """What was asked of one store over many lives, and what was answered."""

    url: str
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)  # key to request
    origins: set[str] = field(default_factory=set)  # rows whose loading was acknowledged
    lives: int = 0
    in_flight: int = 0  # requests that were made and not acknowledged when the process was killed
    in_flight_stored: int = 0  # of them, those that were committed all the same

    def kill_once(self, seed: int, longest_s: float = 0.25) -> None:
        """One life: start the process, kill it within `longest_s` of its first request, check, repeat what was open."""
        random_ = random.Random(seed)
        command = [sys.executable, __file__, self.url, str(seed)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        time.sleep(random_.uniform(0, longest_s))
        process.kill()
        lines, _ = process.communicate()
        self.lives += 1
        open_request = self._heard(lines)
        with open_store(self.url) as store:
            self._check(store, open_request)
            if open_request is not None:
                self._repeat(store, open_request)
                self._check(store, None)

    def _heard(self, lines: str) -> dict[str, Any] | None:
        """Take down what the process said; returns the request that it did not acknowledge."""
        made = None
        for line in lines.splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # killed while it spoke
            said = json.loads(line)
            if "request" in said:
                made = said["request"]
                continue
            assert made is not None
            assert said["done"] == made["key"]
            if "origins" in made:
                self.origins.update(made["origins"])
            else:
                self.acknowledged[made["key"]] = made
            made = None
        return made

    def _check(self, store: Store, open_request: dict[str, Any] | None) -> None:
        """Nothing acknowledged is lost or doubled, nothing is there that was not asked for, and items agree."""
        if not self.url.startswith("postgresql"):
            assert _ask(store, "PRAGMA integrity_check") == [("ok",)]
            assert _ask(store, "PRAGMA foreign_key_check") == []
        lines = _ask(store, "SELECT id, item_id, action, type, key, batch, undoes FROM review_decisions ORDER BY id")
        batches = {line[5] for line in lines}
        maybe = {open_request["key"]} if open_request and "origins" not in open_request else set()
        assert self.acknowledged.keys() <= batches
        assert batches - self.acknowledged.keys() <= maybe
        stored = {line[4]: line for line in lines}
        assert len(stored) == len(lines)
        for key, request in self.acknowledged.items():
            assert stored[key][1] == request["item"]
            if request["action"] != "undo":
                assert (stored[key][2], stored[key][3]) == (request["action"], request["type"])
        loaded = {row[0] for row in _ask(store, "SELECT origin FROM review_origins")}
        maybe_loaded = set(open_request.get("origins", ())) if open_request else set()
        assert self.origins <= loaded
        assert loaded - self.origins in (set(), maybe_loaded)  # all of a chunk, or nothing
        assert _ask(store, "SELECT COALESCE(SUM(rows), 0) FROM review_items") == [(len(loaded),)]
        assert _standing(lines) == {
            row[0]: (row[1], row[2])
            for row in _ask(store, "SELECT id, settled_by, settled_type FROM review_items")
            if row[1] is not None
        }

    def _repeat(self, store: Store, request: dict[str, Any]) -> None:
        """Ask once more what was not acknowledged, as a client would, with the same key."""
        self.in_flight += 1
        if "origins" in request:
            self.in_flight_stored += not store.add(_rows(request["origins"]))
            self.origins.update(request["origins"])
            return
        before = len(_ask(store, "SELECT id FROM review_decisions"))
        _make(store, request)
        self.in_flight_stored += len(_ask(store, "SELECT id FROM review_decisions")) == before
        self.acknowledged[request["key"]] = request


def _ask(store: Store, question: str) -> list[tuple[Any, ...]]:
    return store._database.read(lambda c: [tuple(row) for row in c.execute(text(question))])


def _standing(lines: list[tuple[Any, ...]]) -> dict[int, tuple[int, str]]:
    """What the record alone says of each item: the decision that stands, and its type."""
    undone = {line[6] for line in lines}
    return {line[1]: (line[0], line[3]) for line in lines if line[2] in ("accept", "correct") and line[0] not in undone}


def _rows(origins: list[str]) -> list[NewItem]:
    from support.review import new_item

    return [
        new_item(f"name {origin[:-1]}", int(origin[-1]) / 10, brand=f"brand {origin[-1]}", origin=origin)
        for origin in origins
    ]


def _make(store: Store, request: dict[str, Any]) -> None:
    if request["action"] == "undo":
        store.undo(REVIEWER, request["key"])
        return
    store.decide(
        request["item"],
        Decision(
            request["action"],
            REVIEWER,
            request["version"],
            type=request["type"] if request["action"] == "correct" else None,
            same_name=request["same_name"],
            key=request["key"],
        ),
    )


def _request(random_: random.Random, item: Item, last: int | None, key: str) -> dict[str, Any]:
    if last is not None and random_.random() < 0.2:
        return {"action": "undo", "item": last, "key": key}
    action = random_.choice(["accept", "correct", "correct", "skip"])
    settled_type = {"accept": item.predicted_type, "correct": f"type {key}", "skip": None}[action]
    together = action != "skip" and random_.random() < 0.3
    return {
        "action": action,
        "item": item.id,
        "version": item.version,
        "type": settled_type,
        "same_name": together,
        "key": key,
    }


def _say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(url: str, seed: int) -> None:
    """Review until killed."""
    random_ = random.Random(seed)
    with open_store(url) as store:
        print(READY, flush=True)
        last: int | None = None  # the item of the last decision, which an undo would take back
        for number in range(1_000_000):
            key = f"life-{seed}-{number}"
            item = store.next_item(REVIEWER)
            if item is None or random_.random() < 0.05:
                origins = [f"{seed}-{number}-{i // 3}{i % 3}" for i in range(ROWS)]
                _say(request={"key": key, "origins": origins})
                store.add(_rows(origins))
                _say(done=key)
                continue
            request = _request(random_, item, last, key)
            _say(request=request)
            try:
                _make(store, request)
            except ConflictError:
                raise SystemExit("a lone reviewer meets nobody") from None
            last = None if request["action"] == "undo" else request["item"]
            _say(done=key)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
