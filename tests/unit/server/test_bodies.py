"""Bodies, before anything of them is parsed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shelfwise.server.bodies import Bodies, require_json
from shelfwise.server.errors import ApiError
from shelfwise.server.gate import Gate
from shelfwise.server.metrics import Metrics
from shelfwise.server.settings import Limits

LIMITS = Limits(max_body_bytes=100, max_upload_bytes=1000, body_timeout_s=0.1)
JSON = "application/json"
SCOPE = {"type": "http", "method": "POST", "path": "/v1/classify"}


class Exchange:
    """One request to an application behind `Bodies`: what was sent, read and answered."""

    def __init__(self, parts: Sequence[bytes], *, ends: bool = True, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.parts, self.ends = list(parts), ends
        self.headers = [("content-type", JSON), *headers]
        self.sent: list[Any] = []
        self.received = b""
        self.reads = 0
        self.cancelled = False
        self.gone = asyncio.Event()
        self.reached = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.reads += 1
        if self.parts:
            body = self.parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.parts) or not self.ends}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    async def run(self, path: str = "/v1/classify", *, forever: bool = False) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            message = await receive()
            self.received += message["body"]
            while message["more_body"]:
                message = await receive()
                self.received += message["body"]
            self.reached.set()
            try:
                await asyncio.sleep(3600 if forever else 0)
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        encoded = [(name.encode(), value.encode()) for name, value in self.headers]
        await Bodies(app, LIMITS, Gate(8, Metrics()))(
            {**SCOPE, "path": path, "headers": encoded, "state": {}}, self.receive, self.send
        )


def exchange(parts: Sequence[bytes], path: str = "/v1/classify", **options: Any) -> Exchange:
    async def main() -> Exchange:
        found = Exchange(parts, **options)
        await found.run(path)
        return found

    return asyncio.run(main())


def test_a_body_in_parts_is_handed_on_whole():
    found = exchange([b'{"products"', b': "Rice"}'])
    assert (found.status, found.received) == (200, b'{"products": "Rice"}')


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_read_on():
    async def main() -> None:
        found = Exchange([b"x" * 50] * 3, headers=[("content-length", "101")])
        asyncio.get_running_loop().call_later(0.05, found.gone.set)
        await found.run()
        assert found.status == 413
        assert json.loads(found.sent[1]["body"])["error"]["code"] == "too_large"
        assert (b"connection", b"close") in found.sent[0]["headers"]
        assert not found.received

    asyncio.run(main())


@pytest.mark.parametrize("said", ["9" * 5000, "1" * 30])
def test_a_length_beyond_all_numbers_is_too_long(said):
    assert exchange([b""], headers=[("content-length", said)]).status == 413


def test_a_body_that_lies_about_its_length_is_counted_as_it_comes():
    found = exchange([b"x" * 60, b"x" * 60], headers=[("content-length", "5")])
    assert (found.status, found.received) == (413, b"")


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_the_limit():
    async def main() -> None:
        found = Exchange([b'{"pro'], ends=False)
        asyncio.get_running_loop().call_later(0.3, found.gone.set)
        began = time.monotonic()
        await found.run()
        assert found.status == 408
        assert time.monotonic() - began < 3

    asyncio.run(main())


def test_work_for_a_client_that_goes_is_cancelled():
    async def main() -> None:
        found = Exchange([b"{}"])
        work = asyncio.ensure_future(found.run(forever=True))
        await found.reached.wait()
        found.gone.set()
        with pytest.raises(ApiError, match="closed the connection"):
            await work
        assert found.cancelled
        assert not found.sent

    asyncio.run(main())


def test_a_client_that_goes_while_it_sends_reaches_nobody():
    async def main() -> None:
        found = Exchange([b"{"], ends=False)
        found.gone.set()
        with pytest.raises(ApiError, match="closed the connection"):
            await found.run()
        assert not found.reached.is_set()

    asyncio.run(main())


def test_files_for_the_pages_have_their_own_limit_and_stream():
    assert exchange([b"x" * 500, b"y" * 400], "/upload").received == b"x" * 500 + b"y" * 400
    with pytest.raises(ApiError, match="1,000 bytes"):
        exchange([b"x" * 600] * 2, "/upload")
    with pytest.raises(ApiError, match="1,000 bytes"):
        exchange([b"x"], "/upload", headers=[("content-length", "1001")])


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("", b"{}", 415),
        ("application/x-www-form-urlencoded", b"a=b", 415),
        (JSON, b"[" * 17, 400),
        (JSON, b'{"a":' * 17, 400),
        (JSON, b'{"a"\0: 1}', 400),
        (JSON, '{"a": 1}'.encode("utf-16"), 400),
        (JSON, b"[" + b"{}," * 9000, 413),
    ],
)
def test_what_no_real_request_holds_is_refused_before_it_is_parsed(content_type, body, status):
    with pytest.raises(ApiError) as refused:
        require_json(content_type, body, Limits())
    assert refused.value.status == status


@pytest.mark.parametrize(
    "name", ["[" * 500, '"[{\\"' * 100, "\\", "\\\\[[", "\u2028[", "{" * 900 + '"', "\\u005b" * 40, "\0"]
)
def test_brackets_inside_names_are_text(name):
    for content_type, body in (
        ("Application/JSON; charset=utf-8", json.dumps({"products": [name] * 30})),
        (JSON, json.dumps({"products": name.replace("\0", "")}, ensure_ascii=False)),
    ):
        assert require_json(content_type, body.encode(), Limits()) is None  # not refused


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_the_depth_that_is_counted_is_the_depth_that_is_there(document):
    def depth(value: object) -> int:
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, inside), default=0) if isinstance(value, (dict, list)) else 0

    body = json.dumps(document).encode()
    require_json(JSON, body, Limits(max_json_depth=depth(document)))
    if depth(document):
        with pytest.raises(ApiError, match="levels deep"):
            require_json(JSON, body, Limits(max_json_depth=depth(document) - 1))


def test_more_requests_at_once_than_allowed_are_told_to_come_again():
    async def main() -> None:
        release = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        middleware = Bodies(app, Limits(), Gate(2, Metrics()))
        exchanges = [Exchange([b"{}"]) for _ in range(3)]
        headers = [(b"content-type", JSON.encode())]
        asking = [
            asyncio.ensure_future(middleware({**SCOPE, "headers": headers, "state": {}}, each.receive, each.send))
            for each in exchanges
        ]
        await asyncio.wait({asking[2]})
        release.set()
        await asyncio.gather(*asking)
        assert [each.status for each in exchanges] == [200, 200, 429]

    asyncio.run(main())
