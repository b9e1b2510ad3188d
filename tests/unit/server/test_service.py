"""Several models, new versions of them, and what becomes of answers that need review."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest

from shelfwise import artifact
from shelfwise.classifier import Classifier
from shelfwise.errors import RunFolderError
from shelfwise.records import Prediction
from shelfwise.review import Filter
from shelfwise.server import logs, models
from shelfwise.server.app import create_app
from shelfwise.server.settings import Settings
from support.evaluations import lay_out, write_catalogue
from support.serving import in_process, wait_for

KEY = "key"
ADMIN = {"Authorization": f"Bearer {KEY}"}
UNSURE = "Zzzz"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "shelves"))


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("SHELFWISE_API_KEYS", f"ops {hashlib.sha256(KEY.encode()).hexdigest()} admin")


def another_version(run: Path) -> None:
    """The same run with another promise, as a new training would leave it."""
    found = json.loads((run / artifact.CALIBRATION).read_text())
    found["baseline"]["promise"] = 0.75
    artifact.write_json(run / artifact.CALIBRATION, found)
    artifact.write_manifest(run, {})


def served(client) -> dict[str, str]:
    return client.get("/readyz").json()["models"]


def test_each_model_answers_under_its_name_and_the_first_by_default(run, tmp_path):
    other = lay_out(tmp_path / "other", write_catalogue(tmp_path / "catalogue.csv"), seed=1)
    with in_process(Settings(runs=(str(run), f"second={other}"))) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["shelves", "second"]
        for asked, expected, folder in ((None, "shelves", run), ("second", "second", other)):
            answer = client.post("/v1/classify", json={"products": "Rice Bowl", "model": asked}).json()
            assert answer["model"] == expected
            (right,) = Classifier.load(folder).predict(["Rice Bowl"])
            assert answer["predictions"][0]["confidence"] == right.confidence


def test_a_new_version_takes_over_while_requests_go_on_and_none_is_lost(copy, admin):
    with in_process(Settings(runs=(str(copy),))) as client:
        before = served(client)["shelves"]
        another_version(copy)
        done = threading.Event()

        def ask_on() -> list[tuple[int, str]]:
            found = []
            while not done.is_set():
                answer = client.post("/v1/classify", json={"products": "Neem Soap"}, headers=ADMIN)
                found.append((answer.status_code, answer.json().get("version", answer.text)))
            return found

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask_on) for _ in range(3)]
            (reloaded,) = client.post("/v1/admin/reload", headers=ADMIN).json()["models"]
            wait_for(lambda: client.get("/metrics").text.count('status="200"') > 1, "requests")
            done.set()
            answers = [answer for each in asking for answer in each.result()]
        assert (reloaded["changed"], reloaded["previous_version"]) == (True, before)
        assert {status for status, _ in answers} == {200}
        assert {version for _, version in answers} <= {before, reloaded["version"]}
        assert served(client) == {"shelves": reloaded["version"]}
        assert client.get("/v1/models", headers=ADMIN).json()["data"][0]["promise"] == 0.75
        assert f'version="{before}"' not in client.get("/metrics").text


def test_a_new_version_that_is_broken_leaves_the_old_one_where_it_is(copy, admin):
    with in_process(Settings(runs=(str(copy),))) as client:
        before = served(client)
        another_version(copy)
        (copy / artifact.BASELINE / "weights.safetensors").write_bytes(b"short")
        refused = client.post("/v1/admin/reload", json={"model": "shelves"}, headers=ADMIN)
        assert refused.status_code == 502
        assert refused.json()["error"]["code"] == "reload_failed"
        assert served(client) == before
        assert client.post("/v1/classify", json={"products": "Neem Soap"}, headers=ADMIN).status_code == 200
        assert 'shelfwise_reloads_total{model="shelves",outcome="failed"} 1.0' in client.get("/metrics").text


def test_a_run_that_can_not_be_loaded_is_told_and_nothing_is_ready(tmp_path):
    with in_process(Settings(runs=(str(tmp_path / "none"),))) as client:
        assert isinstance(client.app.state.service.failure, RunFolderError)
        for path in ("/readyz", "/livez", "/v1/types"):
            assert client.get(path).status_code == 503
        assert client.get("/v1/models").json()["data"] == []
        answer = client.post("/v1/classify", json={"products": "Rice"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_a_model_whose_answer_is_none_is_not_ready(run, monkeypatch):
    with in_process(Settings(runs=(str(run),))) as client:
        assert client.get("/readyz").status_code == 200
        nan = float("nan")
        wrong = Prediction("Rice", nan, "review", "", (("Rice", nan),), ("Rice",), ())
        monkeypatch.setattr(models.Loaded, "predict", lambda self, texts, top_k: [wrong] * len(texts))
        monkeypatch.setattr("shelfwise.server.health.PROVEN_S", 0.0)
        entry = client.app.state.service._served["shelves"]
        monkeypatch.setattr(entry.batcher, "_predict", entry.loaded.predict)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_a_service_that_leaves_says_so_first_and_then_refuses(run):
    with in_process(Settings(runs=(str(run),))) as client:
        client.app.state.service.leave()
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.post("/v1/classify", json={"products": "Rice"}).status_code == 200
        client.app.state.service.drain()
        answer = client.post("/v1/classify", json={"products": "Rice"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert answer.headers["retry-after"] == "1"


def test_answers_that_need_review_are_stored_and_the_others_are_not(run, tmp_path):
    store_at = str(tmp_path / "review.db")
    with in_process(Settings(runs=(str(run),), store=store_at)) as client:
        sure = client.post("/v1/classify", json={"products": "Neem Soap"}).json()["predictions"][0]
        assert sure["decision"] == "accept"
        product = {"product": f"{UNSURE} <b>x</b>", "brand": "Amber"}
        unsure = client.post("/v1/classify", json={"products": [product, product]}).json()["predictions"][0]
        assert unsure["decision"] == "review"
        store = client.app.state.store
        wait_for(lambda: store.count(Filter()) == 1, "the item is stored")
        (item,) = store.items()
        assert (item.name, item.brand, item.rows) == (product["product"], "Amber", 2)
        assert (item.reason, item.predicted_type, item.confidence) == (
            "live traffic",
            unsure["type"],
            unsure["confidence"],
        )


def test_an_observer_that_fails_costs_nobody_an_answer(run, caplog):
    def fail(answers: object) -> None:
        raise KeyError("observer")

    with in_process(Settings(runs=(str(run),))) as client:
        client.app.state.service.observe(fail)
        for _ in range(2):
            assert client.post("/v1/classify", json={"products": "Rice"}).status_code == 200
    assert "KeyError: 'observer'" in caplog.text


@pytest.mark.parametrize("log_names", [False, True])
def test_the_log_is_json_and_holds_names_only_when_asked(run, log_names):
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.getLogger("shelfwise.server")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with in_process(Settings(runs=(str(run),), log_names=log_names)) as client:
            client.post("/v1/classify", json={"products": ["Secret Soap", "Rice"]}, headers={"X-Request-Id": "r1"})
            client.post("/v1/classify", json={"products": ["Secret Soap", 3]})
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "r1"]
    assert (line["event"], line["route"], line["status"], line["products"]) == ("request", "/v1/classify", 200, 2)
    assert line["model"] == "shelves"
    assert line["ms"] >= 0
    assert ("Secret" in stream.getvalue()) == log_names


def test_the_openapi_document_says_every_error_and_gives_examples(run):
    document = create_app(Settings(runs=(str(run),))).openapi()
    classify = document["paths"]["/v1/classify"]["post"]
    told = {"200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
    assert set(classify["responses"]) == told
    assert "examples" in classify["requestBody"]["content"]["application/json"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("on_gpu", [True, False])
def test_what_a_gpu_leaves_to_the_cpu_is_done_by_one_thread(run, monkeypatch, on_gpu):
    import torch

    warm = []
    monkeypatch.setattr(models, "on_gpu", lambda: on_gpu)
    monkeypatch.setattr(Classifier, "warm", lambda self: warm.append(torch.get_num_threads()))
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        models.load("shelves", run, Settings(runs=(str(run),)))
        assert torch.get_num_threads() == (1 if on_gpu else 2)
        assert warm == [torch.get_num_threads()]  # once, and as it is going to work
        assert os.environ.get("TOKENIZERS_PARALLELISM") == ("false" if on_gpu else None)
    finally:
        torch.set_num_threads(before)
        os.environ.pop("TOKENIZERS_PARALLELISM", None)
