"""What is counted of traffic, and when it says to train again."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone

import pytest

from shelfwise import artifact
from shelfwise.records import Prediction, Product
from shelfwise.review import Decision, NewItem
from shelfwise.review.store import Store
from shelfwise.server.contract import Answer
from shelfwise.server.monitor import KEPT_HOURS, MAX_NOVEL, Hour, Known, Traffic
from shelfwise.server.monitor_people import People
from shelfwise.server.monitor_reference import Reference
from shelfwise.server.monitor_rules import Decided, Expected, judge, stability_index
from support.evaluations import rows


def answer(text: str, label: str = "Rice", confidence: float = 0.97, brand: str = "") -> Answer:
    decision = "accept" if confidence > 0.9 else "review"
    prediction = Prediction(label, confidence, decision, "", ((label, confidence),), (label,), ())
    return Answer(Product(0, "", text, None, brand=brand, text=text), prediction)


def hour(products=1000, accepted=800, novel=100, confidence=(0, 0, 0, 0, 0, 0, 0, 0, 200, 800)) -> Hour:
    return Hour(products=products, accepted=accepted, novel=novel, confidence=list(confidence))


EXPECTED = Expected(
    products=500,
    accepted_share=0.8,
    novel_share=0.1,
    confidence=(0, 0, 0, 0, 0, 0, 0, 0, 100, 400),
    groups={"Food": 300, "Care": 200},
    train_rows=4000,
)
GROUPS = {"Food": 600, "Care": 400}


def test_answers_are_counted_without_their_names():
    traffic = Traffic(known=Known(frozenset({"rice", "basmati"}), frozenset({"amber"})))
    traffic.observe([answer("Basmati Rice 5kg", brand="Amber"), answer("Zesty Quinoa", "Grain", 0.4, brand="Neu")])
    traffic.timed(0.004)
    total = traffic.seen(24).total
    assert (total.requests, total.products, total.accepted, total.novel) == (1, 2, 1, 1)
    assert dict(total.words) == {"zesty": 1, "quinoa": 1}
    assert dict(total.brands) == {"neu": 1}
    assert (total.confidence[4], total.confidence[9]) == (1, 1)
    assert total.latency_s(0.5) == 0.005


def test_counts_survive_a_restart_and_old_hours_are_let_go(tmp_path):
    now = [1_000_000_000.0]
    path = tmp_path / "traffic.json"
    first = Traffic(path, clock=lambda: now[0])
    first.observe([answer("Rice")])
    first.save()
    assert Traffic(path, clock=lambda: now[0]).seen(1).total.products == 1
    now[0] += (KEPT_HOURS + 1) * 3600
    first.save()
    assert json.loads(path.read_text())["hours"] == {}


@pytest.mark.parametrize("damage", ["", "[]", '{"hours": {"x": {}}}', '{"hours": {"1": {"requests": "many"}}}'])
def test_a_damaged_file_starts_the_count_anew(tmp_path, damage):
    path = tmp_path / "traffic.json"
    path.write_text(damage)
    assert Traffic(path).seen(24).total.products == 0


def test_new_words_do_not_grow_without_bound():
    traffic = Traffic(known=Known(frozenset({"rice"})))
    letters = "abcdefghijklmnopqrstuvwxyz"
    for a in letters:
        traffic.observe([answer(f"x{a}{b}y") for b in letters])
    assert len(traffic.seen(1).total.words) <= MAX_NOVEL


def test_like_traffic_is_no_reason_to_train():
    verdict = judge(hour(), GROUPS, EXPECTED, Decided(60, 0.78, 0.8))
    assert verdict.tone == "yes"
    assert [finding.rule for finding in verdict.findings if finding.broken] == []
    assert {finding.rule for finding in verdict.findings} == {
        "promise", "waiting", "accepted", "confidence", "types", "words"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("decided", "rule"),
    [(Decided(50, 0.58, 0.7), "promise"), (Decided(200, 0.7, 0.7), "waiting")],
)
def test_what_people_say_is_enough_by_itself(decided, rule):
    verdict = judge(hour(), GROUPS, EXPECTED, decided)
    assert verdict.title == "Train again."
    assert [finding.rule for finding in verdict.findings if finding.broken] == [rule]


def test_one_sign_of_the_traffic_is_worth_a_look_and_two_are_a_reason():
    one = judge(hour(novel=220), GROUPS, EXPECTED, Decided())
    assert (one.title, one.tone) == ("Worth a look.", "")
    two = judge(hour(novel=220), {"Food": 50, "Care": 950}, EXPECTED, Decided())
    assert (two.title, two.tone) == ("Train again.", "no")


def test_surer_answers_are_no_sign_and_less_sure_ones_are():
    surer = judge(hour(accepted=990, confidence=(0,) * 9 + (1000,)), GROUPS, EXPECTED, Decided())
    assert surer.tone == "yes"
    doubtful = judge(hour(accepted=400, confidence=(0,) * 5 + (600, 0, 0, 0, 400)), GROUPS, EXPECTED, Decided())
    assert {f.rule for f in doubtful.findings if f.broken} == {"accepted", "confidence"}


def test_little_traffic_is_not_judged():
    verdict = judge(hour(products=199, accepted=0), {"Care": 199}, EXPECTED, Decided())
    assert verdict.title == "Too little traffic to judge."
    assert verdict.findings == ()


def test_the_stability_index_is_near_zero_for_draws_from_one_source():
    assert stability_index({"a": 52, "b": 48}, {"a": 500, "b": 500}) == 0
    assert stability_index({"a": 100}, {"b": 100}) > 1
    assert stability_index({}, {"a": 1}) == 0


def test_a_run_folder_tells_its_words_brands_examples_and_shares(run):
    reference = Reference.of(run)
    names = [name for name, *_ in rows()]
    assert not reference.known.new_words(names[0])
    assert reference.known.new_words("Zyxwvut") == {"zyxwvut"}
    assert reference.known.new_brand(rows()[0][3]) is None
    assert reference.expected.train_rows > 0
    assert reference.examples
    types = {name: row_type for name, *_, row_type in rows()}
    for label, names in reference.examples.items():
        assert names
        assert {types[name] for name in names} == {label}


def test_a_run_folder_tells_when_it_was_trained(run, tmp_path):
    assert Reference.of(run).trained_at_s == 0  # an old one that does not say
    dated = shutil.copytree(run, tmp_path / "dated")
    artifact.write_manifest(dated, {"created": "2026-01-02T03:04:05+00:00"})
    assert Reference.of(dated).trained_at_s == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp()


def test_decisions_that_the_run_has_learned_from_are_no_reason_to_train_again(tmp_path):
    clock = [100.0]
    with Store.open(str(tmp_path / "review.db"), clock=lambda: clock[0]) as store:
        store.add(
            NewItem(name, name, answer(name, confidence=0.6).prediction, "test", "low confidence")
            for name in ("One", "Two", "Three")
        )
        for at_s, type_ in ((100.0, "Tea"), (200.0, None), (300.0, "Tea")):
            clock[0] = at_s
            item = store.next_item("Asha")
            store.decide(item.id, Decision("correct" if type_ else "accept", "Asha", item.version, type=type_))
        assert People.of(store, 0).decided == Decided(3, pytest.approx(1 / 3), pytest.approx(0.6))
        assert People.of(store, 150).decided == Decided(2, pytest.approx(1 / 2), pytest.approx(0.6))
        assert People.of(store, 300).decided == Decided()
        assert People.of(store, 300).settled == 3
    assert People.of(None, 0).there is False
