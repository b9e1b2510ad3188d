from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from shelfwise import artifact, storage
from shelfwise import config as configs
from shelfwise.baseline import Baseline
from shelfwise.blend import combine
from shelfwise.calibration import Calibration
from shelfwise.classifier import Classifier
from shelfwise.errors import CorruptArtifactError, RunFolderError
from shelfwise.labels import Labels, Taxonomy
from shelfwise.records import Which
from support.evaluations import weighed

LABELS = Labels(("Rice", "Soap", "Tea"), Taxonomy({"Tea": (("Drinks", "Hot", 2),), "Rice": (("Food", "", 5),)}))


class Scorer:
    """Gives a text the probabilities that stand in it, as in "0.2 0.3 0.5", and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def log_probs(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.asked.extend(texts)
        return np.log(np.array([[float(share) for share in text.split()] for text in texts], np.float32))


def classifier(threshold: float = 0.6) -> Classifier:
    return Classifier("test", LABELS, Scorer(), Calibration(threshold=threshold), ("product",))


def test_identical_texts_are_scored_once_and_answered_in_their_order() -> None:
    asked = classifier()
    texts = ["0.1 0.2 0.7", "0.8 0.1 0.1", "0.1 0.2 0.7", "0.1 0.6 0.3", "0.8 0.1 0.1"]
    assert [prediction.label for prediction in asked.predict(texts)] == ["Tea", "Rice", "Tea", "Soap", "Rice"]
    assert asked.scorer.asked == ["0.1 0.2 0.7", "0.8 0.1 0.1", "0.1 0.6 0.3"]  # type: ignore[attr-defined]
    assert asked.log_probs(texts).shape == (5, 3)


def test_no_text_is_no_answer() -> None:
    asked = classifier()
    assert asked.predict([]) == []
    assert asked.log_probs([]).shape == (0, 3)
    assert asked.scorer.asked == []  # type: ignore[attr-defined]


def test_ties_go_to_the_label_that_comes_first() -> None:
    even, two = classifier().predict(["0.25 0.25 0.25", "0.2 0.4 0.4"])
    assert [label for label, _ in even.top_k] == ["Rice", "Soap", "Tea"]
    assert [label for label, _ in two.top_k] == ["Soap", "Tea", "Rice"]


@pytest.mark.parametrize(("top_k", "listed"), [(0, 1), (1, 1), (2, 2), (3, 3), (99, 3)])
def test_top_k_is_cut_to_what_there_is_and_holds_the_answer_first(top_k: int, listed: int) -> None:
    (found,) = classifier().predict(["0.1 0.2 0.7"], top_k=top_k)
    assert len(found.top_k) == listed
    assert found.top_k[0] == (found.label, found.confidence)
    assert found.confidence == pytest.approx(0.7)
    assert [share for _, share in found.top_k] == sorted((share for _, share in found.top_k), reverse=True)


def test_the_path_is_the_taxonomys_as_far_as_it_knows_the_type() -> None:
    tea, rice, soap = classifier().predict(["0.1 0.1 0.8", "0.8 0.1 0.1", "0.1 0.8 0.1"])
    assert tea.path == ("Drinks", "Hot", "Tea")
    assert rice.path == ("Food", "Rice")
    assert soap.path == ("Soap",)


def test_the_calibration_decides_and_changes_confidences_but_no_answer() -> None:
    text = "0.1 0.2 0.7"
    (sure,), (unsure,) = classifier(0.69).predict([text]), classifier(0.71).predict([text])
    assert (sure.decision, unsure.decision) == ("accept", "review")
    cooled = Classifier("test", LABELS, Scorer(), Calibration(temperature=2, threshold=0.6), ("product",))
    (found,) = cooled.predict([text])
    assert (found.label, found.decision) == ("Tea", "review")
    np.testing.assert_allclose(cooled.probabilities([text]).sum(axis=1), 1, atol=1e-6)


def test_an_answer_that_is_sure_of_its_category_alone_says_so() -> None:
    taxonomy = Taxonomy({"Rice": (("Food", "Dry", 3),), "Soap": (("Care", "", 2),), "Tea": (("Food", "Wet", 2),)})
    calibration = Calibration(threshold=0.7, sub_category_threshold=0.65, category_threshold=0.6)
    asked = Classifier("test", Labels(LABELS.names, taxonomy), Scorer(), calibration, ("product",))
    found = asked.predict(["0.8 0.1 0.1", "0.66 0.2 0.14", "0.31 0.38 0.31", "0.1 0.5 0.4"])
    assert [answer.decision for answer in found] == ["accept", "review", "review", "review"]
    assert [answer.level for answer in found] == ["type", "sub_category", "category", ""]
    assert [answer.sure_path for answer in found] == [("Food", "Dry", "Rice"), ("Food", "Dry"), ("Food",), ()]
    assert [answer.label for answer in found] == ["Rice", "Rice", "Soap", "Soap"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of the model `baseline`."""
    folder = tmp_path / "run"
    texts = ["basmati rice", "brown rice", "rose soap", "neem soap", "green tea", "black tea"]
    Baseline.fit(texts, np.array([0, 0, 1, 1, 2, 2]), len(LABELS)).save(folder / artifact.BASELINE)
    artifact.write_json(folder / artifact.LABELS, LABELS.to_json())
    artifact.write_json(folder / artifact.CALIBRATION, Calibration.to_json_all({"baseline": Calibration()}))
    artifact.write_text(folder / artifact.CONFIG, configs.dump(configs.TrainConfig(model="baseline")))
    artifact.write_manifest(folder, {})
    return folder


def test_a_run_without_the_wanted_calibration_is_refused_with_the_mend(run: Path) -> None:
    artifact.write_json(run / artifact.CALIBRATION, Calibration.to_json_all({"model": Calibration()}))
    artifact.write_manifest(run, {})
    with pytest.raises(RunFolderError, match=r"calibration\.json: holds no calibration of the baseline.*Copy"):
        Classifier.load(run)


def test_every_file_is_hashed_once_unless_that_was_done_before(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    real = storage.sha256

    def sha256(path: Path) -> str:
        hashed.append(path.name)
        return real(path)

    monkeypatch.setattr(storage, "sha256", sha256)
    assert Classifier.load(run).predict(["green tea"])[0].label == "Tea"
    assert sorted(hashed) == sorted(
        path.name for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    hashed.clear()
    Classifier.load(run, verify=False)
    assert hashed == []


def test_without_verifying_a_file_of_another_size_is_still_found(run: Path) -> None:
    (run / artifact.CONFIG).write_text("model: baseline\n", encoding="utf-8")
    with pytest.raises(CorruptArtifactError, match=r"config\.yaml"):
        Classifier.load(run, verify=False)


class Model:
    """Stands in for a language model: sure of tea."""

    def log_probs(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.log(np.tile(np.array([0.05, 0.05, 0.9], np.float32), (len(texts), 1)))


@pytest.fixture
def blended(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of a language model with its baseline and their blend."""
    monkeypatch.setattr("shelfwise.classifier._engine", lambda *_: Model())
    config = configs.TrainConfig(model="tiny-llama", method="full")
    artifact.write_text(run / artifact.CONFIG, configs.dump(config))
    kinds = {"model": Calibration(2.0), "baseline": Calibration(0.5), "blend": Calibration(0.8, threshold=0.7)}
    artifact.write_json(run / artifact.CALIBRATION, Calibration.to_json_all(kinds))
    artifact.write_json(run / artifact.BLEND, weighed(weight=0.4).to_json())
    artifact.write_manifest(run, {})
    return run


def test_a_run_answers_with_its_blend_unless_another_is_asked_for(blended: Path) -> None:
    names = {which: Classifier.load(blended, which=which).name for which in get_args(Which)}
    both = "tiny-llama full head + baseline"
    assert names == {"auto": both, "model": "tiny-llama full head", "blend": both, "baseline": "baseline"}
    texts = ["basmati rice", "rose soap", "green tea"]
    found = Classifier.load(blended)
    expected = combine(
        Classifier.load(blended, which="model").calibration.log_probs(Model().log_probs(texts)),
        np.log(Classifier.load(blended, which="baseline").probabilities(texts)),
        0.4,
    )
    np.testing.assert_allclose(found.log_probs(texts), expected, atol=1e-5)
    assert found.calibration == Calibration(0.8, threshold=0.7)
    np.testing.assert_allclose(found.probabilities(texts).sum(1), 1, atol=1e-5)
    assert [p.label for p in Classifier.load(blended, which="model").predict(texts)] == ["Tea"] * 3
    assert [p.label for p in found.predict(texts)] != ["Tea"] * 3


def test_a_blend_that_gained_nothing_is_not_what_the_run_answers_with(blended: Path) -> None:
    artifact.write_json(blended / artifact.BLEND, weighed(model=0.8, blend=0.7).to_json())
    artifact.write_manifest(blended, {})
    assert Classifier.load(blended).name == "tiny-llama full head"
    assert Classifier.load(blended, which="blend").name == "tiny-llama full head + baseline"
    wished = configs.TrainConfig(model="tiny-llama", method="full", classifier="blend")
    artifact.write_text(blended / artifact.CONFIG, configs.dump(wished))
    artifact.write_manifest(blended, {})
    assert Classifier.load(blended).name == "tiny-llama full head + baseline"


def test_a_run_of_an_earlier_version_answers_with_its_model(blended: Path) -> None:
    (blended / artifact.BLEND).unlink()
    kinds = {"model": Calibration(2.0), "baseline": Calibration(0.5)}
    artifact.write_json(blended / artifact.CALIBRATION, Calibration.to_json_all(kinds))
    text = (blended / artifact.CONFIG).read_text(encoding="utf-8").replace("classifier: auto\n", "")
    artifact.write_text(blended / artifact.CONFIG, text)
    artifact.write_manifest(blended, {})
    assert Classifier.load(blended).name == "tiny-llama full head"
    with pytest.raises(RunFolderError, match="has no blend of its language model and its baseline"):
        Classifier.load(blended, which="blend")


def test_a_baseline_has_no_language_model_and_no_blend(run: Path) -> None:
    assert Classifier.load(run).name == Classifier.load(run, which="baseline").name == "baseline"
    with pytest.raises(RunFolderError, match=r"a baseline and has no language model\. Ask its baseline, or train"):
        Classifier.load(run, which="model")
    with pytest.raises(RunFolderError, match=r"no language model to blend with\. Ask its baseline, or train"):
        Classifier.load(run, which="blend")


def test_a_blend_without_its_calibration_or_with_a_wrong_weight_or_gone_is_told(blended: Path) -> None:
    kinds = {"model": Calibration(2.0), "baseline": Calibration(0.5)}
    artifact.write_json(blended / artifact.CALIBRATION, Calibration.to_json_all(kinds))
    artifact.write_manifest(blended, {})
    with pytest.raises(RunFolderError, match=r"calibration\.json: holds no calibration of the blend"):
        Classifier.load(blended)
    artifact.write_json(blended / artifact.BLEND, {**weighed().to_json(), "weight": 1.5})
    artifact.write_manifest(blended, {})
    with pytest.raises(CorruptArtifactError, match=r"blend\.json: .*between 0 and 1, not 1\.5"):
        Classifier.load(blended)
    (blended / artifact.BLEND).unlink()
    with pytest.raises(CorruptArtifactError, match=r"blend\.json"):
        Classifier.load(blended, which="model")  # the manifest says that there is one
