"""The pages as plain forms send and get them: no script is needed, and no name becomes markup."""

from __future__ import annotations

import csv
import io
import re
import time

import pytest
from starlette.testclient import TestClient

from shelfwise.classifier import Classifier
from shelfwise.data.names import name_key
from shelfwise.records import Prediction
from shelfwise.review import Decision, NewItem
from shelfwise.server.pages_view import POLICY, assets, mark
from shelfwise.server.settings import Limits, Settings
from support.evaluations import NASTY
from support.serving import in_process, wait_for

HOSTILE = [
    NASTY,
    "'; DROP TABLE items; --",
    '=HYPERLINK("http://x","y")',
    '"><img src=x onerror=alert(1)>',
    "Rice 🍚 👩‍👩‍👧",
    "أرز بسمتي ‮ecir",
    "{{ 7 * 7 }}{% raw %}",
]
FRAGMENT = {"X-Fragment": "1"}


@pytest.fixture
def client(run, tmp_path):
    limits = Limits(max_upload_bytes=200_000)
    settings = Settings(runs=(str(run),), store=str(tmp_path / "review.db"), data=tmp_path / "data", limits=limits)
    with in_process(settings) as found:
        yield found


@pytest.fixture(scope="module")
def bare(run):
    """Without a store and without a place for files."""
    with in_process(Settings(runs=(str(run),))) as found:
        yield found


def queue(client: TestClient, *names: str, confidence: float = 0.4, brand: str = "Amber") -> None:
    client.app.state.store.add(
        NewItem(
            name=name,
            name_key=name_key(name),
            prediction=Prediction(
                "Rice", confidence - i / 100, "review", "", (("Rice", 0.4), ("Green Tea", 0.3)), ("Rice",), ()
            ),
            model="test",
            reason="low confidence",
            brand=brand,
        )
        for i, name in enumerate(names)
    )


def named(client: TestClient, name: str = "Asha") -> TestClient:
    client.post("/review/name", data={"name": name})
    return client


def form_of(text: str, form: str = "decide") -> dict[str, str]:
    inside = re.search(rf'<form[^>]*id="{form}".*?</form>', text, re.S)
    assert inside, text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', inside[0]))


def upload(client: TestClient, body: bytes, name: str = "new.csv", **headers: str):
    return client.post("/upload", files={"file": (name, body)}, headers=headers, follow_redirects=False)


def finished(client: TestClient, answer) -> str:
    where = answer.headers["location"]
    wait_for(lambda: "tiles" in client.get(where).text, "the file is classified")
    return where


@pytest.mark.parametrize("path", ["/", "/upload", "/review", "/report", "/monitor"])
def test_every_page_comes_with_the_policy_and_without_a_store_says_what_to_do(bare, path):
    answer = bare.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert not re.search(r"<[^>]+\son\w+=|style=|<script>|javascript:", answer.text)
    assert 'aria-current="page"' in answer.text


def test_the_pages_say_how_to_get_what_is_missing(bare):
    assert "--data DIR" in bare.get("/upload").text
    assert "--store" in bare.get("/review").text
    assert "shelfwise evaluate" in bare.get("/report").text


def test_assets_are_kept_and_only_known_ones_are_given(bare):
    for name, asset in assets().items():
        answer = bare.get(f"/static/{name}?v={asset.version}")
        assert answer.content == asset.body
        assert "immutable" in answer.headers["cache-control"]
    for name in ("..%2f..%2fpyproject.toml", "pages.css", "nothing"):
        assert bare.get(f"/static/{name}").status_code == 404


def test_names_are_classified_as_the_classifier_does(client, run):
    names = ["Amber Basmati Rice 1 kg", "Rose Soap", *HOSTILE]
    text = client.post("/", data={"names": "\r\n".join(names)}).text
    found = re.findall(r'<div class="best">\s*<b>([^<]*)</b>', text)
    expected = [p.label.replace("&", "&amp;") for p in Classifier.load(run).predict(names)]
    assert found[:2] == expected[:2]
    assert len(found) == len(names)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_on_every_page(client, name):
    queue(client, name, brand=name)
    named(client, name)
    file = io.StringIO()
    csv.writer(file).writerows([["product"], [name]])
    where = finished(client, upload(client, file.getvalue().encode(), f"{name}.csv"))
    pages = [client.post("/", data={"names": name}).text, client.get("/review").text, client.get("/upload").text]
    pages += [client.get(where).text, client.get(where, params={"text": name}).text]
    for text in pages:
        assert "<img" not in text
        assert "<script>" not in text
        assert "49" not in re.sub(r"=[0-9a-f]{16}|[0-9a-f]{32,}|\d\.\d", "", text) or "7 * 7" not in name
    assert client.app.state.store.progress().total == 1


def test_a_download_runs_nothing_in_a_spreadsheet(client):
    where = finished(client, upload(client, b'product\n"=1+1 Rice"\nRice\n', "=cmd.csv"))
    answer = client.get(f"{where}/result.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["product"] for row in rows] == ["'=1+1 Rice", "Rice"]
    assert answer.headers["content-disposition"].startswith('attachment; filename="_cmd-types.csv"')
    assert client.get(f"{where}/result.exe").status_code == 422
    for suffix in (".xlsx", ".jsonl", ".parquet"):
        assert client.get(f"{where}/result{suffix}").status_code == 200


def test_a_result_is_filtered_and_downloaded_as_it_is_shown(client):
    body = b"product\n" + b"".join(b"Amber Basmati Rice %d kg\nRose Soap %d\n" % (i, i) for i in range(40)) + b",\n"
    where = finished(client, upload(client, body))
    all_rows = list(csv.DictReader(io.StringIO(client.get(f"{where}/result.csv").text)))
    assert len(all_rows) == 80
    page = client.get(where)
    assert "1 to 50 of 80" in page.text
    assert "51 to 80 of 80" in client.get(where, params={"offset": 50}).text
    soap = list(csv.DictReader(io.StringIO(client.get(f"{where}/result.csv", params={"text": "SOAP 3"}).text)))
    assert {row["product"] for row in soap} == {"Rose Soap 3", *(f"Rose Soap 3{i}" for i in range(10))}
    rice = client.get(f"{where}/result.csv", params={"type": "Rice"}).text
    assert {row["predicted_type"] for row in csv.DictReader(io.StringIO(rice))} == {"Rice"}
    none = client.get(where, params={"text": "nothing like it"})
    assert "No row is like that" in none.text
    assert "row could not be classified" in page.text
    assert "wrong number" in client.get(f"{where}/rejects.csv").text or client.get(f"{where}/rejects.csv").text


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("a.exe", b"MZ", "only CSV"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"product\n" + b"x" * 200_000, "larger than"),
        ("a.csv", b"product\n" + b"x" * 400_000, "larger than"),
    ],
)
def test_a_file_that_is_not_taken_leaves_nothing(client, name, body, said):
    answer = upload(client, body, name)
    assert answer.status_code in (413, 422)
    assert said in answer.text
    assert "are listed here" in client.get("/upload").text


def test_a_file_without_products_says_so(client):
    where = upload(client, b"colour\nred\n").headers["location"]
    wait_for(lambda: "complaint" in client.get(where).text, "it has failed")
    assert "product" in client.get(where).text
    assert "/jobs/" not in client.get(where).text
    assert client.post(f"{where}/delete", follow_redirects=False).status_code == 303
    assert client.get(where).status_code == 404


def test_the_doubtful_rows_go_to_the_queue_once(client):
    where = finished(client, upload(client, b"product\nZebra Lamp\nQuartz Hinge\nRice\n"))
    doubtful = [
        r for r in csv.DictReader(io.StringIO(client.get(f"{where}/result.csv").text)) if r["decision"] == "review"
    ]
    assert doubtful
    for _ in range(2):
        client.post(f"{where}/review")
        assert client.app.state.store.progress().total == len(doubtful)


def test_a_reviewer_accepts_corrects_skips_and_undoes(client):
    queue(client, "Basmati", "Tulsi", "Mystery")
    store = client.app.state.store
    text = named(client).get("/review").text
    # The least sure first: the last of the three.
    assert ">Mystery</h1>" in text
    client.post("/review/decide", data={**form_of(text), "choice": "skip"})
    text = client.get("/review").text
    assert ">Tulsi</h1>" in text
    client.post("/review/decide", data={**form_of(text), "choice": "type:Green Tea"})
    text = client.get("/review").text
    client.post("/review/decide", data={**form_of(text), "choice": "accept"})
    progress = store.progress()
    assert (progress.open, progress.accepted, progress.corrected) == (1, 1, 1)
    text = client.get("/review").text
    assert "Nothing is left for you" in text
    client.post("/review/undo", data=form_of(text, "undo"))
    assert store.progress().accepted == 0
    assert ">Basmati</h1>" in client.get("/review").text


def test_a_decision_that_is_sent_twice_is_stored_once(client):
    queue(client, "Basmati", "Tulsi")
    data = {**form_of(named(client).get("/review").text), "choice": "type:Green Tea"}
    answers = [client.post("/review/decide", data=data, headers=FRAGMENT) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert len(client.app.state.store.history(int(data["item"]))) == 1


def test_two_reviewers_are_told_of_each_other(client):
    queue(client, "Basmati")
    store = client.app.state.store
    form = form_of(named(client, "Asha").get("/review").text)
    item = store.item(int(form["item"]))
    store.decide(item.id, Decision("correct", "Ben", item.version, type="Soap & Bars"))
    answer = client.post("/review/decide", data={**form, "choice": "type:Green Tea"}, headers=FRAGMENT)
    assert answer.status_code == 409
    assert "Ben decided this" in answer.text
    assert "Soap &amp; Bars" in answer.text
    assert store.item(item.id).settled_type == "Soap & Bars"
    client.post("/review/overrule", data=form_of(answer.text, "overrule"))
    assert store.item(item.id).settled_type == "Green Tea"
    assert [line.action for line in store.history(item.id)] == ["correct", "undo", "correct"]


def test_identical_names_are_settled_together_when_asked(client):
    queue(client, "Basmati", brand="Amber")
    queue(client, "Basmati", brand="Dune")
    queue(client, "Basmati", brand="Elan")
    text = named(client).get("/review").text
    assert "Also the 2 others of this name" in text
    client.post("/review/decide", data={**form_of(text), "choice": "accept", "same": "yes"})
    assert client.app.state.store.progress().accepted == 3


def test_no_type_is_made_up(client):
    queue(client, "Basmati")
    data = {**form_of(named(client).get("/review").text), "choice": "type:<b>New</b>"}
    answer = client.post("/review/decide", data=data)
    assert answer.status_code == 422
    assert "<b>New" not in answer.text
    assert client.app.state.store.progress().settled == 0


@pytest.mark.parametrize(
    "change", [{"item": "x"}, {"version": ""}, {"item": "9" * 30}, {"choice": "drop"}, {"item": "-1"}]
)
def test_a_form_that_is_none_of_ours_changes_nothing(client, change):
    queue(client, "Basmati")
    data = {**form_of(named(client).get("/review").text), "choice": "accept", **change}
    assert client.post("/review/decide", data=data).status_code in (404, 422)
    assert client.app.state.store.progress().settled == 0


@pytest.mark.parametrize("path", ["/", "/upload", "/review/name", "/review/decide", "/review/undo", "/review/leave"])
@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_a_form_of_another_site_is_refused(client, path, headers):
    assert client.post(path, data={"name": "x"}, headers=headers).status_code == 403


def test_decisions_can_be_had_as_a_catalogue(client):
    assert client.get("/review/decisions.csv").status_code == 404
    queue(client, "=Basmati")
    client.post("/review/decide", data={**form_of(named(client).get("/review").text), "choice": "type:Green Tea"})
    row = next(csv.DictReader(io.StringIO(client.get("/review/decisions.csv").text)))
    assert (row["product"], row["type"], row["reviewed_by"]) == ("'=Basmati", "Green Tea", "Asha")


def test_what_is_typed_on_try_is_neither_counted_nor_queued_and_what_the_api_answers_is(client):
    client.post("/", data={"names": "Zebra Lamp"})
    client.post("/v1/classify", json={"products": ["Quartz Hinge"]})
    wait_for(lambda: client.app.state.store.progress().total, "the answer is queued")
    time.sleep(0.05)
    assert [item.name for item in client.app.state.store.items()] == ["Quartz Hinge"]
    assert len(client.app.state.store.items()[0].top_k) == 4  # all types there are, for the reviewer
    shown = client.get("/monitor").text
    assert re.search(r"<b>1</b><span>products in 1 requests", shown)
    assert "Too little traffic" in shown


def test_jobs_that_were_under_way_are_ended_after_a_restart(run, tmp_path):
    settings = Settings(runs=(str(run),), data=tmp_path / "data")
    with in_process(settings) as client:
        where = upload(client, b"product\n" + b"".join(b"Rice %d\n" % i for i in range(5000))).headers["location"]
    with in_process(settings) as client:
        wait_for(lambda: "tiles" in client.get(where).text, "the file is classified")
        assert "<b>5,000</b>" in client.get(where).text


def test_a_searched_word_is_marked_and_nothing_else_is_markup():
    assert mark("<b>Rice", "ri") == "&lt;b&gt;<mark>Ri</mark>ce"
    assert mark("<b>Rice", "<b>") == "<mark>&lt;b&gt;</mark>Rice"
    assert mark("İstanbul Rice", "rice") == "İstanbul Rice"  # folding it changes its length
