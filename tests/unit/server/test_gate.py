"""How many requests may be under way, and what the others hear."""

from __future__ import annotations

import json
import logging

import pytest

from shelfwise.server.errors import ApiError
from shelfwise.server.gate import REFUSALS_EVERY_S, Gate
from shelfwise.server.metrics import Metrics
from shelfwise.server.schemas import ErrorResponse


def test_it_is_full_when_as_many_are_in_as_may_be():
    gate = Gate(2, Metrics())
    gate.enter()
    gate.enter()
    with pytest.raises(ApiError) as refused:
        gate.enter()
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    gate.leave()
    gate.enter()


def test_those_whose_task_has_yet_to_begin_count_as_well():
    gate = Gate(2, Metrics())
    gate.announce()
    gate.announce()
    assert gate.full
    for _ in range(2):  # they were promised room
        gate.begin()
        gate.enter()
    assert gate.full
    gate.leave()
    gate.leave()
    assert not gate.full


@pytest.mark.parametrize(("keep_alive", "said"), [(True, b"keep-alive"), (False, b"close")])
def test_what_is_refused_unread_hears_a_whole_answer_of_the_one_shape(keep_alive, said):
    head, _, body = Gate(0, Metrics()).shed("/classify", keep_alive=keep_alive).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.split(b": ") for line in lines)
    assert status == b"HTTP/1.1 429 Too Many Requests"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert headers[b"retry-after"] == b"1"
    assert headers[b"connection"] == said
    assert ErrorResponse.model_validate(json.loads(body)).error.code == "queue_full"


def test_every_refusal_is_counted_and_one_line_a_second_tells_of_them(caplog):
    now_s, metrics = 100.0, Metrics()
    gate = Gate(0, metrics, clock=lambda: now_s)
    with caplog.at_level(logging.INFO, "shelfwise.server.request"):
        for _ in range(5):
            gate.shed("/v1/classify", keep_alive=True)
        now_s += REFUSALS_EVERY_S
        gate.shed("/v1/classify", keep_alive=True)
    assert [line.refusals for line in caplog.records] == [1, 5]
    text = metrics.text().decode()
    assert 'shelfwise_requests_total{method="POST",route="/v1/classify",status="429"} 6.0' in text
    assert 'shelfwise_rejected_total{reason="queue_full"} 6.0' in text
