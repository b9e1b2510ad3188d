"""People before a service that may die at any moment: two review, one uploads. Each notes what was confirmed."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any

from shelfwise.server.pages_desk import Choice
from shelfwise.server.pages_people import COOKIE
from shelfwise.server.pages_view import FRAGMENT_HEADER

TIMEOUT_S = 60.0
POLL_S = 0.05
_BOUNDARY = "----------------------------shelfwise"
_DEAD = (OSError, http.client.HTTPException, socket.timeout)


@dataclass(frozen=True)
class Act:
    """One request of a reviewer, with what the store has to hold once it is confirmed."""

    path: str
    form: Mapping[str, str]
    key: str  # of the record
    action: str  # "accept", "correct", "skip", "undo"
    item: int | None = None  # None: an undo, which finds its item itself
    type: str | None = None  # of a correction
    undoes: str | None = None  # the key of the decision that is taken back


@dataclass
class Notes:
    """What was confirmed, and what was asked for without an answer."""

    done: dict[str, Act] = field(default_factory=dict)  # by key
    open: Act | None = None
    conflicts: int = 0
    repeated: int = 0  # requests that a killed service left open, asked again


class Client:
    """One connection to whatever service lives on a port."""

    def __init__(self, port: int, reviewer: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._headers = {FRAGMENT_HEADER: "1"} | ({"Cookie": f"{COOKIE}={reviewer}"} if reviewer else {})

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes, str]:
        """Status, body, and where the answer points to."""
        headers = self._headers | ({"Content-Type": kind} if kind else {})
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("Location", "")

    def post(self, path: str, form: Mapping[str, str]) -> tuple[int, bytes, str]:
        return self.ask("POST", path, urllib.parse.urlencode(form).encode(), "application/x-www-form-urlencoded")


class Reviewer:
    """Accepts, corrects, skips and takes back, a request at a time, as the page does."""

    def __init__(self, name: str, seed: int, other: list[dict[str, str]]) -> None:
        self.name, self.notes = name, Notes()
        self._random = random.Random(seed)
        self._standing: list[str] = []  # keys of decisions that an undo would take back, the last one first to go
        self._shown = other  # cards that anybody has seen of late: to decide about the same product twice
        self._card: dict[str, Any] | None = None

    def review(self, port: int) -> None:
        """Until the service dies. What it left open is asked again first, with the same key."""
        client = Client(port, self.name)
        try:
            if self.notes.open is not None:
                self.notes.repeated += 1
                self._make(client, self.notes.open)
            self._look(client)
            while True:
                act = self._next()
                if act is None:
                    time.sleep(POLL_S)
                    self._look(client)
                    continue
                self.notes.open = act
                self._make(client, act)
        except _DEAD:
            return

    def _look(self, client: Client) -> None:
        status, body, _ = client.ask("GET", "/review")
        if status != 200:
            raise AssertionError(f"the review page answers {status}")
        self._card = _card(body.decode())

    def _next(self) -> Act | None:
        if self._standing and self._random.random() < 0.15:
            key = uuid.uuid4().hex
            return Act("/review/undo", {"key": key}, key, "undo", undoes=self._standing[-1])
        card = self._card
        if card is None:
            return None
        self._shown.append(card)
        del self._shown[:-20]
        if self._random.random() < 0.1:
            card = self._random.choice(self._shown)  # perhaps the other one's, who may have decided meanwhile
        choice = self._random.choice(["accept", "accept", "skip", *card["types"]])
        form = {"item": card["item"], "version": card["version"], "card": card["card"], "choice": choice}
        if card["same"] and self._random.random() < 0.5:
            form["same"] = "yes"
        action, _, label = choice.partition(":")
        same_name = form.get("same") == "yes" and action != "skip"
        asked = Choice(int(card["item"]), int(card["version"]), card["card"], action, label, same_name)
        decision = asked.decision(self.name, card["predicted"])
        assert decision.key is not None
        return Act("/review/decide", form, decision.key, decision.action, int(card["item"]), decision.type)

    def _make(self, client: Client, act: Act) -> None:
        status, body, _ = client.post(act.path, act.form)
        self.notes.open = None
        if status == 409:
            self.notes.conflicts += 1
            self._look(client)
            return
        if status == 422 and b"key was used" in body:  # the other one's card, decided in the same way: not stored
            self.notes.conflicts += 1
            self._look(client)
            return
        if status != 200:
            raise AssertionError(f"{act.path} answers {status}: {body.decode()[:500]}")
        text = body.decode()
        if "so nothing was stored" in text:
            self.notes.conflicts += 1
        elif act.key not in self.notes.done:
            self.notes.done[act.key] = act
            if act.action == "undo":
                self._standing.pop()
            else:
                self._standing.append(act.key)
        self._card = _card(text)


def _card(page: str) -> dict[str, Any] | None:
    """What the page shows to decide about; None where nothing is left."""
    fields = {name: unescape(value) for name, value in re.findall(r'name="(item|version|card)" value="([^"]*)"', page)}
    if "item" not in fields:
        return None
    accepts = re.search(r'name="choice" value="accept" class="main"[^>]*>Accept (.*?) <kbd>', page)
    types = [unescape(found) for found in re.findall(r'name="choice" value="(type:[^"]*)"', page)]
    predicted = unescape(accepts[1]) if accepts else ""
    return {**fields, "types": types, "predicted": predicted, "same": 'name="same"' in page}


@dataclass
class Uploader:
    """Uploads a file, waits for its answers, compares them, deletes the job, and begins again."""

    files: list[bytes]
    kept: dict[str, int] = field(default_factory=dict)  # jobs whose upload was confirmed, and which file each is of
    deleted: set[str] = field(default_factory=set)  # whose deletion was confirmed
    downloaded: list[tuple[int, bytes]] = field(default_factory=list)  # finished answers that nobody compared yet
    finished: int = 0
    sent: int = 0
    open_deletion: str | None = None

    def upload(self, port: int) -> None:
        """Until the service dies."""
        client = Client(port)
        try:
            while True:
                if not self.kept:
                    self._send(client)
                self._take(client, next(iter(self.kept)))
                time.sleep(POLL_S)
        except _DEAD:
            return

    def _send(self, client: Client) -> None:
        number = self.sent % len(self.files)
        self.sent += 1
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="new.csv"\r\n\r\n'
        body = head.encode() + self.files[number] + f"\r\n--{_BOUNDARY}--\r\n".encode()
        status, said, where = client.ask("POST", "/upload", body, f"multipart/form-data; boundary={_BOUNDARY}")
        if status != 201:
            raise AssertionError(f"/upload answers {status}: {said.decode()[:500]}")
        self.kept[where.rpartition("/")[2]] = number

    def _take(self, client: Client, job: str) -> None:
        if job != self.open_deletion:
            status, body, _ = client.ask("GET", f"/upload/{job}/result.parquet")
            if status == 404:
                status, shown, _ = client.ask("GET", f"/upload/{job}")
                if status != 200 or b"failed" in shown.lower():
                    raise AssertionError(f"an upload that was confirmed: {status} {shown.decode()[:500]}")
                return
            if status != 200:
                raise AssertionError(f"a result answers {status}: {body.decode(errors='replace')[:500]}")
            self.downloaded.append((self.kept[job], body))
            self.finished += 1
        self.open_deletion = job
        status, said, _ = client.post(f"/upload/{job}/delete", {})
        if status not in (303, 409):  # 409: deleted before the answer could be sent
            raise AssertionError(f"a deletion answers {status}: {said.decode()[:500]}")
        self.deleted.add(job)
        del self.kept[job]
        self.open_deletion = None


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
