"""A language model and its baseline together, from training to answers over HTTP."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from shelfwise import artifact, cli
from shelfwise import config as configs
from shelfwise.baseline import Baseline
from shelfwise.blend import Blend
from shelfwise.classifier import Classifier
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import CorruptArtifactError, InputError
from shelfwise.modeling.engine import Engine
from shelfwise.pipelines.evaluation import Evaluation
from shelfwise.pipelines.export import export
from shelfwise.pipelines.run import TrainedRun
from shelfwise.server.settings import Settings
from support.runs import EXAMPLES, train_small, write_base_model, write_catalogue
from support.serving import in_process

NAMES = [f"{text} no {number}" for number, (text, _) in enumerate(EXAMPLES[:30])] + ["A thing never seen before"]
SPLIT = {"test_size": 0.3, "validation_size": 0.3}
TOGETHER = "llama full head + baseline"


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("data") / "catalogue.csv")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base_model("llama", tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="module")
def trained(catalogue: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run that answers with its blend, whichever of the two is better after seconds of training."""
    run = tmp_path_factory.mktemp("runs") / "both"
    return train_small(catalogue, run, model=str(base), method="full", classifier="blend", split=SPLIT)


def test_the_saved_blend_is_the_one_that_was_fitted_and_reads_its_parts_from_disk(trained: TrainedRun) -> None:
    run = trained.folder
    assert trained.blend is not None
    assert Blend.load(run / artifact.BLEND) == trained.blend
    manifest = artifact.read_manifest(run)
    assert (manifest["classifier"], manifest["blend_weight"]) == ("blend", round(trained.blend.weight, 4))
    assert trained.blend.told in (run / artifact.CARD).read_text(encoding="utf-8")
    config = configs.load(run / artifact.CONFIG)
    source = read_catalogue(config.catalogue, config.columns, config.text_columns)  # type: ignore[arg-type]
    validation = Splits.load(run / artifact.SPLIT).parts(source).validation
    texts, truth = [product.text for product in validation], [product.label for product in validation]
    assert trained.blend.rows == len(texts) > 0
    for which, fitted in (("model", trained.blend.model), ("baseline", trained.blend.baseline)):
        right = [p.label == t for p, t in zip(Classifier.load(run, which=which).predict(texts), truth, strict=True)]
        assert np.mean(right) == pytest.approx(fitted.accuracy)
    together = Classifier.load(run)
    assert together.name == TOGETHER
    right = [p.label == t for p, t in zip(together.predict(texts), truth, strict=True)]
    assert np.mean(right) == pytest.approx(trained.blend.blend.accuracy)
    probabilities = together.probabilities(texts)
    nll = -np.log(probabilities[np.arange(len(texts)), [together.labels.index(t or "", "") for t in truth]])
    assert nll.mean() == pytest.approx(trained.blend.blend.mean_nll, abs=1e-4)
    np.testing.assert_array_equal(Classifier.load(run).log_probs(NAMES), together.log_probs(NAMES))


def test_evaluate_shows_all_four_and_asks_each_part_once(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, list[str]] = {"model": [], "baseline": []}
    for name, of, method in (("model", Engine, "start"), ("baseline", Baseline, "log_probs")):
        real = getattr(of, method)

        def counted(self, texts, real=real, name=name):  # type: ignore[no-untyped-def]
            asked[name].extend(texts)
            return real(self, texts)

        monkeypatch.setattr(of, method, counted)
    out = tmp_path / "evaluation"
    assert cli.run(["evaluate", str(trained.folder), "--out", str(out), "--device", "cpu"]) == 0
    found = Evaluation.load(out)
    assert [standing.kind for standing in found.standings] == ["majority", "baseline", "model", "blend"]
    assert found.blend == trained.blend
    assert len(asked["model"]) == len(set(asked["model"])) == len(asked["baseline"]) == found.facts.rows
    said = " ".join(capsys.readouterr().out.split())
    assert trained.blend is not None
    assert trained.blend.told in said
    assert TOGETHER in (out / "report.html").read_text(encoding="utf-8")


def test_predict_and_serve_answer_with_the_blend_as_the_evaluation_did_or_with_whom_is_asked_for(
    trained: TrainedRun, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained.folder
    names = {"auto": TOGETHER, "blend": TOGETHER, "model": "llama full head", "baseline": "baseline"}
    answers: dict[str, list[dict[str, str]]] = {}
    for which, name in names.items():
        out = tmp_path / f"{which}.csv"
        options = [] if which == "auto" else ["--classifier", which]
        call = ["predict", str(run), str(catalogue), "--out", str(out), "--device", "cpu", *options]
        assert cli.run(call) == 0
        with out.open(newline="", encoding="utf-8") as stream:
            answers[which] = list(csv.DictReader(stream))
        assert {row["model"] for row in answers[which]} == {name}
        assert ("The blend weighs the language model" in capsys.readouterr().out) == (name == TOGETHER)
    assert answers["auto"] == answers["blend"] != answers["model"]
    texts = [row["product"] for row in answers["auto"]]
    for which, found in answers.items():
        expected = Classifier.load(run, which=which, device="cpu").predict(texts)  # type: ignore[arg-type]
        assert [row["predicted_type"] for row in found] == [each.label for each in expected]
        np.testing.assert_allclose(
            [float(row["confidence"]) for row in found], [e.confidence for e in expected], atol=1e-4
        )
    for which in ("auto", "model"):
        with in_process(Settings(runs=(str(run),), which=which, device="cpu")) as client:  # type: ignore[arg-type]
            assert client.get("/v1/models").json()["data"][0]["classifier"] == names[which]
            served = client.post("/v1/classify", json={"products": texts}).json()["predictions"]
        for row, one in zip(answers[which], served, strict=True):
            assert (one["type"], one["decision"]) == (row["predicted_type"], row["decision"])
            assert one["confidence"] == pytest.approx(float(row["confidence"]), abs=1e-4)


def test_the_export_holds_the_model_alone_and_says_so(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["export", str(trained.folder), "--out", str(tmp_path / "plain"), "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    card = " ".join((tmp_path / "plain" / "README.md").read_text(encoding="utf-8").split())
    assert trained.blend is not None
    for text in (said, card):
        assert "This is the language model alone. The run answers with a blend" in text
        assert trained.blend.told in text
    assert json.loads((tmp_path / "plain" / "parity.json").read_text())["left_out"].startswith("This is")


def test_a_run_that_answers_with_its_model_has_nothing_left_out(catalogue: Path, base: Path, tmp_path: Path) -> None:
    run = train_small(catalogue, tmp_path / "run", model=str(base), method="full", classifier="model", split=SPLIT)
    assert run.blend is not None  # it is there, for whom it is asked
    assert artifact.read_manifest(run.folder)["classifier"] == "model"
    assert Classifier.load(run.folder).name == "llama full head"
    assert export(run.folder, tmp_path / "plain", device="cpu").left_out == ""


def test_a_blend_that_was_changed_is_refused(trained: TrainedRun, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    path = run / artifact.BLEND
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(CorruptArtifactError, match=r"blend\.json"):
        Classifier.load(run)
    path.unlink()
    with pytest.raises(CorruptArtifactError, match=r"blend\.json"):
        Classifier.load(run)


def test_a_blend_without_validation_products_is_refused_before_training(
    catalogue: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"fitted on validation products.*classifier: model"):
        train_small(catalogue, tmp_path / "run", model=str(base), classifier="blend", split={"validation_size": 0.0})
    assert not (tmp_path / "run").exists()
    run = train_small(catalogue, tmp_path / "auto", model=str(base), method="full", split={"validation_size": 0.0})
    assert run.blend is None
    assert not (run.folder / artifact.BLEND).exists()
    assert Classifier.load(run.folder).name == "llama full head"


@pytest.mark.parametrize("changes", [{"model": "baseline"}, {"model": "tiny-llama", "baseline": False}])
def test_a_blend_of_one_is_refused_with_the_configuration(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="classifier: blend needs"):
        configs.parse({"classifier": "blend", **changes}, "test")


def test_the_cascade_and_a_single_classifier_are_not_asked_for_together(
    trained: TrainedRun, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["predict", str(trained.folder), str(catalogue), "--out", str(tmp_path / "out.csv")]
    for options, told in (
        (["--cascade", "--classifier", "model"], "two in a row"),
        (["--cascade", "--baseline"], "two in a row"),
        (["--baseline", "--classifier", "model"], "--classifier the model"),
    ):
        assert cli.run([*call, *options]) == 2
        assert told in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out.csv").exists()
