"""A run's model as a plain transformers folder, and proof that it answers as the run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise import __version__, artifact
from shelfwise import config as configs
from shelfwise.classifier import Classifier, answering, blend_of
from shelfwise.config import Precision, TrainConfig
from shelfwise.data.catalogue import read_catalogue
from shelfwise.data.split import Splits
from shelfwise.errors import InputError, RunFolderError, WorkError
from shelfwise.labels import Labels
from shelfwise.pipelines.parity import Comparison, Flip, compare_answers, margin_of
from shelfwise.prompts import PromptFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PARITY = "parity.json"
MAX_NAMES = 1_000  # names that the proof is made on
ALONE = 64  # of them, how many are also asked for one by one
COPIED = (artifact.LABELS, artifact.PROMPT, artifact.CALIBRATION)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported, and its proof."""

    folder: Path
    dtype: Precision
    names: int
    names_of: str  # where the names come from
    margin: float  # probabilities that differ by no more are a tie
    comparisons: tuple[Comparison, ...]
    left_out: str = ""  # what the run answers with and weights can't hold, in words; empty where there is nothing

    def to_json(self) -> dict[str, object]:
        """What `parity.json` holds."""
        return {
            "shelfwise": __version__,
            "dtype": self.dtype,
            "names": self.names,
            "names_of": self.names_of,
            "margin": self.margin,
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "left_out": self.left_out,
        }


def export(
    run: Path,
    out: Path,
    *,
    dtype: Precision | None = None,
    names: Path | None = None,
    device: str = "auto",
    step: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write a run's model as plain transformers load it, adapters merged, once it is proven to answer as it did.

    That is the language model alone, also of a run that answers with a blend: weights can't hold the baseline.

    Args:
        run: a run folder with a language model.
        out: the folder to write; must be new or empty.
        dtype: of the weights; None: as a full run saved them, else the precision that the run was trained in.
        names: a file of products to make the proof on; None: the run's validation part, or its test part if it has no
            validation.
        device: "auto", "cpu", "cuda", "cuda:1".
        step: told the name of each part as it begins.

    Raises:
        InputError: the call is wrong, or there are no names to make the proof on.
        WorkError: the exported model answers otherwise than the run; nothing is left under `out`.
        StorageError: the disk refused.
    """
    from shelfwise.modeling import merging
    from shelfwise.modeling.loading import Parts

    artifact.read_manifest(run, verify=False)  # Classifier.load compares the hashes
    config = configs.load(run / artifact.CONFIG)
    _require_exportable(run, out, config)
    texts, names_of = _texts(run, config, names)
    step("asking the run")
    classifier = Classifier.load(run, which="model", device=device, plain=True)
    labels = classifier.labels
    answers = {"run": classifier.probabilities(texts)}
    calibrated = classifier.calibration.probabilities
    precision: Precision = classifier.scorer.precision  # type: ignore[attr-defined]  # a language model's has one
    del classifier  # its weights

    step("merging")
    parts = Parts(run / artifact.MODEL, run / artifact.ADAPTER, run / artifact.TOKENIZER)
    prompts = PromptFormat.load(run / artifact.PROMPT)
    model: Any = merging.merged(config, labels, parts, device, dtype)
    found = merging.precision_of(model)
    engine = merging.engine_around(model, parts.tokenizer, prompts, config.objective, labels)
    answers["merged"] = calibrated(engine.log_probs(texts))
    with artifact.atomic_folder(out) as staging:
        step("writing")
        with artifact.storage_errors(out):
            model.save_pretrained(staging)
            engine.encoder.tokenizer.save_pretrained(staging)
        for name in COPIED:
            artifact.write_text(staging / name, (run / name).read_text(encoding="utf-8"))
        left_out = _left_out(run, config)
        artifact.write_text(staging / artifact.CARD, _card(config, labels, left_out))
        del model, engine
        step("reading it back and asking it")
        plain = merging.reload(staging, config.objective, device)
        again = merging.engine_around(plain, staging, prompts, config.objective, labels)
        answers["reloaded"] = calibrated(again.log_probs(texts))
        alone = [calibrated(again.log_probs([text])) for text in texts[:ALONE]]
        margin = max(margin_of(precision), margin_of(found))
        comparisons = _compared(answers, alone, texts, labels, margin)
        exported = Exported(out, found, len(texts), names_of, margin, comparisons, left_out)
        _require_parity(exported)
        artifact.write_json(staging / PARITY, exported.to_json())
    return exported


def _require_exportable(run: Path, out: Path, config: TrainConfig) -> None:
    if config.model == "baseline":
        raise InputError(f"{run}: this run is a baseline and has no language model to export.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: exists and is not empty. Delete it, or choose another --out.")


def _left_out(run: Path, config: TrainConfig) -> str:
    """What is said of a run that answers with a blend; empty of others."""
    blend = blend_of(run)
    if blend is None or answering(run, config) != "blend":
        return ""
    return (
        "This is the language model alone. The run answers with a blend of it and its linear baseline, which weights "
        f"can't hold: shelfwise predict and serve give that. {blend.told}"
    )


def _texts(run: Path, config: TrainConfig, names: Path | None) -> tuple[list[str], str]:
    """Different texts to make the proof on, in the order of the file, and where they come from."""
    path = names or config.catalogue
    if path is None or (names is None and not path.is_file()):
        where = "" if path is None else f" at {path}"
        raise InputError(f"{run}: the catalogue it was trained on is not{where}. Name a file of products with --names.")
    catalogue = read_catalogue(path, config.columns, config.text_columns, options=False)
    if names is not None:
        products, names_of = catalogue.products, names.name
    else:
        splits = Splits.load(run / artifact.SPLIT)
        splits.check(catalogue)
        parts = splits.parts(catalogue)
        products, names_of = (parts.validation, "validation") if parts.validation else (parts.test, "test")
    texts = list(dict.fromkeys(product.text for product in products))[:MAX_NAMES]
    if not texts:
        raise InputError(f"{run}: neither validation nor test has a product. Name a file of products with --names.")
    return texts, names_of


def _compared(
    answers: dict[str, NDArray[np.float32]],
    alone: list[NDArray[np.float32]],
    texts: list[str],
    labels: Labels,
    margin: float,
) -> tuple[Comparison, ...]:
    import numpy as np

    pairs = [
        (a, b, answers[a], answers[b]) for a, b in (("run", "merged"), ("merged", "reloaded"), ("run", "reloaded"))
    ]
    pairs.append(("in a batch", "alone", answers["reloaded"][: len(alone)], np.concatenate(alone)))
    return tuple(compare_answers(first, second, p, q, texts, labels, margin) for first, second, p, q in pairs)


def _require_parity(exported: Exported) -> None:
    for comparison in exported.comparisons:
        if comparison.flipped:
            first: Flip = comparison.flips[0]
            raise WorkError(
                f"{exported.folder}: not exported: {comparison.flipped} of {comparison.names} names get another type "
                f"({comparison.first} against {comparison.second}) by more than {exported.margin}, such as "
                f"'{first.text}': '{first.first}' became '{first.second}'. Export with --dtype fp32, or train again."
            )


def _card(config: TrainConfig, labels: Labels, left_out: str) -> str:
    """The lines that load the folder without Shelfwise."""
    beside = f"\n{left_out}\n" if left_out else ""
    head = config.objective == "head"
    cls = "AutoModelForSequenceClassification" if head else "AutoModelForCausalLM"
    if head:
        ask = "print(model.config.id2label[model(**inputs).logits.argmax().item()])"
        serve = "vllm serve . --runner pooling --convert classify"
        path, body = "classify", '{"model": ".", "input": ["Basmati Rice 5 kg ->:"]}'
    else:
        ask = "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=16)[0]))  # free text"
        serve = "vllm serve ."
        path, body = "v1/completions", '{"model": ".", "prompt": "Basmati Rice 5 kg ->:", "temperature": 0}'
    return f"""# {len(labels)} inventory types from product names

Exported from a run of `{config.model}`, method `{config.method}`, objective `{config.objective}`. `{PARITY}` shows how
closely it answers like the run; `labels.json` holds the types in their order, `calibration.json` what turns the
probabilities into confidences that keep a promise (its entry "model").
{beside}
```python
from transformers import {cls}, AutoTokenizer
model = {cls}.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
inputs = tokenizer("Basmati Rice 5 kg ->:", return_tensors="pt")
{ask}
```

With vLLM:

```sh
{serve}
curl localhost:8000/{path} -H 'Content-Type: application/json' -d '{body}'
```
"""
