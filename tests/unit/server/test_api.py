"""The API in this process: its answers, and the one shape of its errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shelfwise.classifier import Classifier
from shelfwise.server import schemas
from shelfwise.server.settings import Limits, Settings
from shelfwise.text import normalise
from support.evaluations import NASTY, rows
from support.serving import in_process, wait_for

NAMES = [row[0] for row in rows()][::5]
HOSTILE = [
    NASTY,
    "'; DROP TABLE review_items; --",
    '=HYPERLINK("http://x")',
    "Rice 🍚 👩‍👩‍👧",
    "\u202eecir itamsaB",
    "أرز بسمتي",
    "NULL\u0000 soap",
    "{{ 7 * 7 }} ${jndi:ldap://x}",
    "../../etc/passwd",
    "NA",
]


def ask(client, document, path="/v1/classify", **headers):
    return client.post(path, json=document, headers=headers)


def code_of(response):
    assert set(response.json()) == {"error"}
    schemas.ErrorResponse.model_validate(response.json())
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture(scope="module")
def classifier(run):
    return Classifier.load(run)


def as_sent(prediction):
    return {
        "type": prediction.label,
        "confidence": prediction.confidence,
        "decision": prediction.decision,
        "level": prediction.level,
        "path": list(prediction.path),
        "sure_path": list(prediction.sure_path),
        "top_k": [{"type": label, "confidence": share} for label, share in prediction.top_k],
    }


def test_an_answer_is_the_classifiers_own_alone_and_in_any_batch(client, classifier):
    alone = [ask(client, {"products": name}).json()["predictions"] for name in NAMES]
    together = ask(client, {"products": NAMES}).json()["predictions"]
    backwards = ask(client, {"products": NAMES[::-1]}).json()["predictions"]
    expected = [as_sent(prediction) for prediction in classifier.predict(NAMES)]
    for name, one, two, three, prediction in zip(NAMES, alone, together, backwards[::-1], expected, strict=True):
        assert one == [two] == [three] == [{"product": name, "text": name, **prediction}]


@pytest.mark.parametrize("top_k", [1, 2, 50])
def test_as_many_types_are_listed_as_were_asked_for(client, classifier, top_k):
    found = ask(client, {"products": NAMES[:3], "top_k": top_k}).json()["predictions"]
    assert [each["top_k"] for each in found] == [
        as_sent(prediction)["top_k"] for prediction in classifier.predict(NAMES[:3], top_k=top_k)
    ]


def test_an_answer_has_the_shape_that_openapi_says(client):
    document = ask(client, {"products": [{"product": "Neem  Soap", "brand": "Amber"}, "Rice"]}).json()
    assert schemas.ClassifyResponse.model_validate(document).model_dump() == document
    assert document["predictions"][0]["product"] == "Neem Soap"
    vllm = ask(client, {"input": "Rice"}, "/classify").json()
    assert schemas.VllmResponse.model_validate(vllm).model_dump() == vllm


def test_vllms_clients_get_the_probabilities_of_all_types_in_their_order(client, classifier):
    names = [each["type"] for each in client.get("/v1/types").json()["types"]]
    assert names == list(classifier.labels.names)
    data = ask(client, {"input": NAMES[:4], "model": "shelves", "user": "x"}, "/classify").json()["data"]
    for index, (answer, probabilities) in enumerate(zip(data, classifier.probabilities(NAMES[:4]), strict=True)):
        assert (answer["index"], answer["num_classes"]) == (index, len(names))
        assert answer["probs"] == [float(share) for share in probabilities]
        assert answer["label"] == names[int(probabilities.argmax())]


def test_the_models_are_listed_with_what_they_read(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["classifier"], model["text_columns"]) == ("shelves", "baseline", ["product"])
    assert model["default"]
    assert ask(client, {"products": "Rice"}).json()["version"] == model["version"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_every_kind_are_text(client, name):
    answer = ask(client, {"products": [name, {"product": name, "brand": name}]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert {each["product"] for each in answer.json()["predictions"]} == {normalise(name)}


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ({}, "products"),
        ({"products": []}, "products"),
        ({"products": ["ok", " \u200b"]}, "products.1"),
        ({"products": ["ok", 3]}, "products.1"),
        ({"products": [{"brand": "x"}]}, "products.0.product"),
        ({"products": {"product": "x", "colour": "red"}}, "products.colour"),
        ({"products": "x" * 1001}, "products"),
        ({"products": "x", "top_k": 0}, "top_k"),
        ({"products": "x", "top_k": "3"}, "top_k"),
        ({"products": "x", "top_k": True}, "top_k"),
        ({"products": "x", "top_k": 1.5}, "top_k"),
        ({"products": "x", "top_k": 1e300}, "top_k"),
        ({"products": "x", "model": 1}, "model"),
        ({"products": "x", "modell": "y"}, "modell"),
        ([], ""),
        (None, ""),
    ],
)
def test_what_is_wrong_with_a_request_is_told_with_its_place_and_without_its_text(client, document, where):
    answer = ask(client, document)
    assert code_of(answer) == (422, "invalid_request")
    assert [detail["where"] for detail in answer.json()["error"]["details"]] == [where]
    assert "xxxx" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"nope", b'{"products": NaN', b"\xff\xfe", b'{"a": 1} x'])
def test_what_is_no_json_is_told(client, body):
    answer = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert code_of(answer)[1] in ("invalid_json", "invalid_request")


def test_a_number_of_too_many_digits_is_no_fault_of_ours(client):
    body = b'{"products": "x", "top_k": ' + b"9" * 5000 + b"}"
    answer = client.post("/v1/classify", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/nothing", "GET", (404, "not_found")),
        ("/v1/nothing", "POST", (404, "not_found")),
        ("/v1/classify", "GET", (405, "method_not_allowed")),
        ("/v1/types", "POST", (405, "method_not_allowed")),
        ("/v1/types?model=shelvs", "GET", (404, "model_not_found")),
        ("/v1/types?model=" + "x" * 201, "GET", (422, "invalid_request")),
    ],
)
def test_a_wrong_address_is_told_in_the_same_shape(client, path, method, expected):
    answer = client.request(method, path)
    assert code_of(answer) == expected
    assert ("allow" in answer.headers) == (expected[0] == 405)


def test_an_unknown_model_is_told_with_the_nearest_one(client):
    answer = ask(client, {"products": "Rice", "model": "shelvs"})
    assert code_of(answer) == (404, "model_not_found")
    assert "Did you mean 'shelves'?" in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1.5"])
def test_a_deadline_that_is_none_is_told(client, value):
    answer = ask(client, {"products": "Rice"}, **{"X-Timeout-Ms": value})
    assert code_of(answer) == (422, "invalid_request")
    assert "X-Timeout-Ms" in answer.text


def test_a_deadline_that_can_not_be_kept_is_told(run):
    slow = Settings(runs=(str(run),))
    slow = replace(slow, batching=replace(slow.batching, max_wait_s=0.5))
    with in_process(slow) as client:
        assert code_of(ask(client, {"products": "Rice"}, **{"X-Timeout-Ms": "5"})) == (504, "deadline_exceeded")
        dropped = 'shelfwise_dropped_products_total{model="shelves",reason="late"} 1.0'
        wait_for(lambda: dropped in client.get("/metrics").text, "the product is dropped")


def test_every_limit_of_a_request_is_kept(run):
    limits = Limits(max_items=3, max_characters=20, max_body_bytes=400)
    with in_process(Settings(runs=(str(run),), limits=limits)) as client:
        assert ask(client, {"products": ["a", "b", "c"]}).status_code == 200
        for products in (["a"] * 4, ["x" * 21], ["x" * 500]):
            assert code_of(ask(client, {"products": products})) == (413, "too_large")


def test_every_answer_has_a_number_and_a_given_one_is_kept(client):
    assert ask(client, {"products": "Rice"}, **{"X-Request-Id": "order-7"}).headers["x-request-id"] == "order-7"
    made = [ask(client, {}, **{"X-Request-Id": "a b\tc"}).headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    assert all(len(each) == 32 for each in made)


def test_metrics_tell_requests_products_confidences_and_refusals(client):
    ask(client, {"products": ["Neem Soap", "Basmati Rice"]})
    ask(client, {})
    text = client.get("/metrics").text
    for line in (
        'shelfwise_requests_total{method="POST",route="/v1/classify",status="200"}',
        'shelfwise_request_seconds_bucket{le="0.03",route="/v1/classify"}',
        'shelfwise_products_total{decision="accept",level="type",model="shelves"}',
        'shelfwise_confidence_bucket{le="0.95",model="shelves"}',
        'shelfwise_batch_products_count{model="shelves"}',
        'shelfwise_queue_characters{model="shelves"} 0.0',
        'shelfwise_rejected_total{reason="invalid_request"}',
        "shelfwise_ready 1.0",
    ):
        assert line in text, line
    assert "Neem" not in text


@pytest.fixture
def json_lines():
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    )
    return st.one_of(
        st.binary(max_size=200),
        json_value.map(lambda value: json.dumps(value).encode()),
        st.fixed_dictionaries({"products": json_value}, optional={"top_k": json_value, "model": json_value}).map(
            lambda value: json.dumps(value).encode()
        ),
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_is_answered_with_a_fault_of_ours(client, json_lines, data):
    path = data.draw(st.sampled_from(["/v1/classify", "/classify"]))
    answer = client.post(path, content=data.draw(json_lines), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404, 413, 422)
    if answer.status_code != 200:
        code_of(answer)


def test_a_flood_of_refusals_is_counted_and_does_not_flood_the_log(run, caplog):
    caplog.set_level("INFO", logger="shelfwise.server.request")
    with in_process(Settings(runs=(str(run),), limits=Limits(max_in_flight=0))) as client:
        for _ in range(20):
            answer = ask(client, {"products": "Rice"})
            assert code_of(answer) == (429, "queue_full")
            assert answer.headers["retry-after"] == "1"
        assert 'shelfwise_rejected_total{reason="queue_full"} 20.0' in client.get("/metrics").text
    told = [record for record in caplog.records if getattr(record, "status", 0) == 429]
    assert 1 <= len(told) < 20
