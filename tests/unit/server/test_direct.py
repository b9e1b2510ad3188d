"""The short way to an answer: what it answers is what FastAPI's way answers."""

from __future__ import annotations

import pytest

from shelfwise.server import api, direct
from shelfwise.server.settings import Limits, Settings
from support.serving import in_process

LIMITS = Limits(max_items=3, max_characters=100)
NAN = b'{"products": "Rice", "top_k": NaN}'
BODIES = [
    b'{"products": "Basmati Rice 1 kg"}',
    b'{"products": ["Basmati Rice 1 kg", {"product": "Neem Soap", "brand": "Amber"}], "top_k": 2}',
    b'{"products": "Rice", "top_k": 2.0}',
    b'{"products": "Rice", "products": "Soap"}',
    b'{"products": "Ri\\u0000ce \\ud83c\\udf5a"}',
    '{"products": "  أرز   بسمتي "}'.encode(),
    b'{"products": "Ri\\ud800ce"}',
    b'{"products": ["Rice", ""]}',
    b'{"products": []}',
    b'{"products": ["a", "b", "c", "d"]}',
    b'{"products": "%s"}' % (b"x" * 101),
    b'{"products": "Rice", "top_k": "2"}',
    b'{"products": "Rice", "top_k": 0}',
    b'{"products": "Rice", "more": 1}',
    b'{"products": "Rice", "model": "nobody"}',
    b'{"products": "\xff"}',
    b'{"products": "Rice"',
    b'["Rice"]',
    b"",
    NAN,
]
VLLM_BODIES = [
    b'{"input": "Rice"}',
    b'{"input": ["Rice", "Soap"], "other": 1}',
    b'{"input": []}',
    b'{"input": 3}',
    b"[]",
]
TIMEOUTS = ["2000", "0", "1e3", "9" * 30, "", "+5", "-1", "1_0", "true"]
HEADERS = [{}, *({"X-Timeout-Ms": said} for said in TIMEOUTS)]


@pytest.fixture(scope="module")
def client(run):
    with in_process(Settings(runs=(str(run),), limits=LIMITS)) as found:
        yield found


def told(answer):
    """An answer without what differs from one to the next."""
    document = answer.json()
    return answer.status_code, {name: document[name] for name in document if name not in ("id", "created")}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        *(("/v1/classify", body, {}) for body in BODIES),
        *(("/classify", body, {}) for body in VLLM_BODIES),
        *(("/v1/classify", BODIES[0], headers) for headers in HEADERS),
    ],
)
def test_both_ways_give_the_same_answer(client, monkeypatch, path, body, headers):
    sent = {"Content-Type": "application/json", **headers}
    short = client.post(path, content=body, headers=sent)
    monkeypatch.setattr(direct, "_FORMS", {})
    assert told(short) == told(client.post(path, content=body, headers=sent))


def test_an_empty_timeout_is_refused(client):
    answer = client.post("/v1/classify", json={"products": "Rice"}, headers={"X-Timeout-Ms": ""})
    assert answer.status_code == 422


def test_what_is_as_it_should_be_does_not_come_to_fastapi(client, monkeypatch):
    async def never(*_):
        raise AssertionError("this way is for what is wrong with a request")

    monkeypatch.setattr(api.answering, "classify", never)
    assert client.post("/v1/classify", json={"products": "Rice"}).status_code == 200
    assert client.post("/v1/classify", json={"products": ""}).status_code == 422
