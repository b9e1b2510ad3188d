"""The service's log: whole lines, and nobody who waits for them."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from shelfwise.server import logs
from shelfwise.server.logs import Aside, JsonLines


class Stuck(io.StringIO):
    """A stream whose reader takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.reached = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.go.wait(30)
        return super().write(text)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stream = Stuck()
    yield stream
    stream.go.set()


def logger_to(handler: Aside) -> logging.Logger:
    handler.setFormatter(JsonLines())
    found = logging.Logger("shelfwise.server.request", logging.INFO)
    found.addHandler(handler)
    return found


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_come_whole_in_their_order_and_all_of_them_before_the_end() -> None:
    stream = io.StringIO()
    handler = Aside(stream)
    logger = logger_to(handler)
    for number in range(500):
        logs.event(logger, "request", {"number": number, "name": "two\nlines"})
    handler.close()
    assert [line["number"] for line in lines(stream)] == list(range(500))
    logs.event(logger, "after the end", {})
    assert lines(stream)[-1]["event"] == "after the end"


def test_who_logs_does_not_wait_for_a_stream_that_takes_nothing(stuck: Stuck) -> None:
    handler = Aside(stuck, most=50)
    logger = logger_to(handler)
    logs.event(logger, "request", {"number": -1})
    assert stuck.reached.wait(10)  # the writer is held from now on
    done = threading.Event()

    def log() -> None:
        for number in range(80):
            logs.event(logger, "request", {"number": number})
        done.set()

    threading.Thread(target=log, daemon=True).start()
    assert done.wait(10)
    stuck.go.set()
    handler.close()
    found = lines(stuck)
    assert [line["number"] for line in found if "number" in line] == [-1, *range(50)]
    assert [line["lines"] for line in found if line["event"] == "lines not written"] == [30]


def test_an_end_does_not_wait_for_ever_either(stuck: Stuck) -> None:
    handler = Aside(stuck)
    logs.event(logger_to(handler), "request", {})
    assert stuck.reached.wait(10)
    began = time.monotonic()
    handler.close()
    assert time.monotonic() - began < 10


def test_a_reader_that_has_gone_ends_nothing_and_is_written_to_again_when_it_is_back() -> None:
    class Fickle(io.StringIO):
        gone = True

        def write(self, text: str) -> int:
            if self.gone:
                raise BrokenPipeError
            return super().write(text)

    stream = Fickle()
    handler = Aside(stream)
    logger = logger_to(handler)
    logs.event(logger, "request", {"number": 1})
    time.sleep(0.2)
    stream.gone = False
    logs.event(logger, "request", {"number": 2})
    handler.close()
    assert [line["number"] for line in lines(stream)] == [2]
    stream.close()
    logs.event(logger, "request", {"number": 3})  # raises nothing
    assert stream.closed
