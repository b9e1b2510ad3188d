"""Who may ask."""

from __future__ import annotations

import hashlib

import pytest

from shelfwise.server.settings import Settings
from support.serving import in_process

ASK = {"products": "Rice"}


@pytest.fixture(scope="module")
def client(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    known = [("shop", "key-of-shop", ""), ("ops", "key-of-ops", " admin")]
    path.write_text("".join(f"{n} {hashlib.sha256(k.encode()).hexdigest()}{a}\n" for n, k, a in known))
    settings = Settings(runs=(str(run),), api_keys=path, cors_origins=("https://shop.example",))
    with in_process(settings) as found:
        yield found


@pytest.fixture(scope="module")
def open_client(run):
    with in_process(Settings(runs=(str(run),))) as found:
        yield found


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/types", "/openapi.json", "/nothing"])
def test_without_a_key_nothing_is_told(client, path):
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_browser_is_asked_for_a_password(client):
    asked = client.get("/v1/models", headers={"Accept": "text/html,*/*"}).headers["www-authenticate"]
    assert asked.startswith("Basic ")
    assert client.get("/v1/models", auth=("me", "key-of-shop")).status_code == 200


def test_with_a_key_it_is(client):
    assert client.post("/v1/classify", json=ASK, headers=key("shop")).status_code == 200
    assert client.post("/v1/classify", json=ASK, headers=key("nobody")).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_who_runs_the_service_needs_none(client, path):
    assert client.get(path).status_code == 200


def test_only_an_admin_reloads(client, open_client):
    assert client.post("/v1/admin/reload", headers=key("shop")).status_code == 403
    done = client.post("/v1/admin/reload", headers=key("ops"))
    assert done.status_code == 200
    assert [model["changed"] for model in done.json()["models"]] == [False]
    assert open_client.post("/v1/admin/reload").status_code == 403


def test_a_page_of_another_site_gets_nothing_unless_it_is_named(client, open_client):
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    allowed = client.options("/v1/classify", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    asked = client.post("/v1/classify", json=ASK, headers={**key("shop"), "Origin": "https://shop.example"})
    assert asked.headers["access-control-allow-origin"] == "https://shop.example"
    for other, headers in ((client, key("shop")), (open_client, {})):
        refused = other.post("/v1/classify", json=ASK, headers={**headers, "Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in open_client.options("/v1/classify", headers=preflight).headers


@pytest.mark.parametrize("origin", ["http://testserver", "HTTP://TESTSERVER".lower()])
def test_our_own_pages_may_ask(open_client, origin):
    assert open_client.post("/v1/classify", json=ASK, headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("origin", ["null", "http://testserver.evil.example", "http://testserver:81", ""])
def test_what_only_looks_like_our_own_page_may_not(open_client, origin):
    assert open_client.post("/v1/classify", json=ASK, headers={"Origin": origin}).status_code == 403
