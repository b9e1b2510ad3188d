"""How fast the objective `completion` answers with the whole distribution over BigBasket's 426 types.

    python benchmarks/completion_speed.py CATALOGUE --run RUN --out benchmarks/results [--models llama falcon]
    python benchmarks/completion_speed.py CATALOGUE --run RUN --record ANSWERS         # on a CPU, or anywhere
    python benchmarks/completion_speed.py CATALOGUE --run RUN --answers ANSWERS        # 7B shapes alone

RUN is a trained SmolLM2 run with that objective. Its answers on the test names come first: asked for likely tokens
alone, for all of them, and as transformers computes them, one mask over the whole tree; with what leaving out changes.

Then LLaMA2-7B and Falcon-7B, at their true shapes. Random weights are sure of nothing, and would ask for the whole
tree. So they pass through all that a trained model asks for, and the trained run says what to ask next (`Led`): the
time is that of a 7B model as sure as SmolLM2-135M is after training, whose answers were written down before. It is
asked for test names too, for it is surer of those that it was trained on. The vocabulary is SmolLM2's, 49,152 tokens.
`--record` writes these answers into a file, so that the model itself need not be where the 7B shapes are measured. All
times are of scoring, with the tokenizer's, and no two names are the same.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import _bench
import _profile
from inference_speed import held_out, matrix_weights
from shelfwise.modeling.packed import completion as completions
from shelfwise.modeling.packed.completion import Completion
from training_speed import NAMES, ceiling, forget, peak
from true_size import shape

REPEATS = 3
LED = 2048  # names, of the 7B shapes
AT_ONCE = 512  # names of a lot, whose keys and values take up to 8 GiB in LLaMA2-7B; two lots take turns


Answers = dict[tuple[int, int], Any]  # by lot and step


@dataclass(frozen=True, slots=True)
class Heard(Completion):
    """Writes down what it is answered, in halves: it says what to ask next and nothing else."""

    answers: Answers = field(default_factory=dict)

    def _wait(self, number: int, step: int, asked: Any) -> Any:
        self.answers[number, step] = Completion._wait(self, number, step, asked).astype(np.float16)
        return self.answers[number, step]


@dataclass(frozen=True, slots=True)
class Led(Completion):
    """Waits for its own answers and goes on by those of another model, whose tokens are the same."""

    answers: Answers = field(default_factory=dict)

    def _wait(self, number: int, step: int, asked: Any) -> Any:
        own = Completion._wait(self, number, step, asked)
        theirs = self.answers[number, step]
        assert own.shape == theirs.shape
        return theirs


def with_answers(kind: type[Any], inference: Completion, answers: Answers) -> Any:
    """The same, of another kind."""
    fields = {name: getattr(inference, name) for name in Completion.__dataclass_fields__}
    return kind(**fields, answers=answers)


class Counted:
    """Tokens that pass through a decoder stack, gaps included."""

    def __init__(self) -> None:
        self.tokens, self.passes, self._plain = 0, 0, completions.stack

    def __enter__(self) -> Counted:
        completions.stack = self._stack
        return self

    def __exit__(self, *_: object) -> None:
        completions.stack = self._plain

    def _stack(self, packed: Any, ids: Any, attend: Any, keep: Any) -> Any:
        self.tokens += len(ids)
        self.passes += 1
        return self._plain(packed, ids, attend, keep)


def timed(ask: Callable[[Sequence[str]], Any], names: Sequence[str], repeats: int) -> tuple[Any, float]:
    """What is answered, and products a second: the median of repeated askings, after one that counts for nothing."""
    ask(names)
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        answers = ask(names)
        seconds.append(time.perf_counter() - began)
    return answers, len(names) / statistics.median(seconds)


def trained(run: Path, products: Sequence[Any], options: argparse.Namespace) -> tuple[list[dict[str, Any]], Any]:
    """The trained run's own answers on test, three ways and in each precision; and its engine."""
    from shelfwise import artifact, metrics
    from shelfwise import config as configs
    from shelfwise.classifier import Classifier
    from shelfwise.labels import Labels

    config, labels = configs.load(run / artifact.CONFIG), Labels.load(run / artifact.LABELS)
    texts = [product.text for product in products]
    targets = np.array([labels.index(product.label or "", "") for product in products])
    rows = []

    def row(method: str, precision: str, ask: Any, many: int) -> Any:
        some = texts[:many]
        answers, rate = timed(ask, some, options.repeats if many == len(texts) else 1)
        scores = metrics.scores(answers, targets[:many])
        rows.append(
            {
                "model": f"{Path(config.model).name} {config.method} (trained)",
                "method": method,
                "precision": precision,
                "products": many,
                "products_per_s": round(rate, 1),
                "accuracy": round(scores.accuracy, 4),
                "mean_nll": round(scores.mean_nll, 4),
            }
        )
        return answers

    def beside(answers: Any, exact: Any) -> None:
        answers = answers[: len(exact)]
        rows[-1] |= {
            "same_answer": round(float((answers.argmax(1) == exact.argmax(1)).mean()), 4),
            "largest_difference": float(f"{np.abs(np.exp(answers) - np.exp(exact)).max():.1e}"),
        }

    many = min(options.exact, len(texts))
    plain = Classifier.load(run, which="model", precision="fp32", plain=True).scorer
    reference = row("transformers, a mask over the tree", "fp32", plain.log_probs, many)
    del plain
    engine: Any = None
    for precision in options.precisions:
        forget()
        engine = Classifier.load(run, which="model", precision=precision).scorer
        for tolerance in options.tolerances:
            asking = replace(engine, inference=replace(engine.inference, tolerance=tolerance))
            with Counted() as counted:
                answers = row("likely tokens", precision, asking.log_probs, len(texts))
                asked = counted.tokens / (options.repeats + 1) / len(texts)
            rows[-1] |= {"tolerance": tolerance, "tokens_per_product": round(asked, 1)}
            beside(answers, reference)
        whole = replace(engine, inference=replace(engine.inference, tolerance=0))
        beside(row("all tokens", precision, whole.log_probs, many), reference)
    for one in rows:
        _bench.say(one)
    return rows, engine


@dataclass(frozen=True, slots=True)
class Leader:
    """What is taken of the trained run."""

    encoder: Any
    labels: Any
    vocabulary: int
    answers: dict[tuple[float, int], Answers]  # by tolerance and names at once


def recorded(engine: Any, names: Sequence[str], options: argparse.Namespace) -> Leader:
    """What the trained run answers, step by step."""
    answers: dict[tuple[float, int], Answers] = {}
    for tolerance, lot in itertools.product(options.tolerances, options.at_once):
        alike = replace(engine.inference, tolerance=tolerance, names_at_once=lot)
        replace(engine, inference=with_answers(Heard, alike, answers.setdefault((tolerance, lot), {}))).log_probs(names)
    return Leader(engine.encoder, engine.labels, engine.inference.head.weight.shape[0], answers)


def kept(leader: Leader, path: Path) -> None:
    """Write its answers down."""
    arrays = {
        f"{tolerance}/{lot}/{number}/{step}": answers
        for (tolerance, lot), of in leader.answers.items()
        for (number, step), answers in of.items()
    }
    np.savez_compressed(path, vocabulary=np.array(leader.vocabulary), **arrays)


def reread(run: Path, path: Path) -> Leader:
    """A leader whose answers were written down, and whose model is not needed."""
    from shelfwise import artifact
    from shelfwise.labels import Labels
    from shelfwise.modeling.encoding import Encoder, load_tokenizer
    from shelfwise.prompts import PromptFormat

    answers: dict[tuple[float, int], Answers] = {}
    with np.load(path) as file:
        for name in set(file.files) - {"vocabulary"}:
            tolerance, lot, number, step = name.split("/")
            answers.setdefault((float(tolerance), int(lot)), {})[int(number), int(step)] = file[name]
        vocabulary = int(file["vocabulary"])
    encoder = Encoder(load_tokenizer(run / artifact.TOKENIZER), PromptFormat.load(run / artifact.PROMPT))
    return Leader(encoder, Labels.load(run / artifact.LABELS), vocabulary, answers)


def led(
    architecture: str,
    precision: str,
    tolerance: float,
    lot: int,
    leader: Leader,
    names: list[str],
    top: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """A 7B shape led by the trained run."""
    import torch
    from transformers import AutoModelForCausalLM

    from shelfwise.modeling.engine import Engine
    from shelfwise.modeling.hardware import DTYPES, resolve_device

    config = shape(architecture, options.tiny)
    config.vocab_size, config.pad_token_id = leader.vocabulary, leader.encoder.tokenizer.pad_token_id
    device = resolve_device()
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    ends = leader.encoder.completions(leader.labels.names)
    fp8 = precision == "fp8"
    found = Completion.of(model, ends, dtype=DTYPES["bf16" if fp8 else precision], fp8=fp8)
    assert found is not None
    engine = Engine.of(model, leader.encoder, "completion", leader.labels, device, "bf16" if fp8 else precision)
    alike = replace(found, tolerance=tolerance, names_at_once=lot)
    asking = replace(engine, inference=with_answers(Led, alike, leader.answers[tolerance, lot]))
    with Counted() as counted:
        _, rate = timed(asking.log_probs, names, options.repeats)
        tokens = counted.tokens / (options.repeats + 1) / len(names)
    profile: dict[str, Any] = {}
    if options.profile:
        recording = _profile.Profile()
        recording.begin()
        asking.log_probs(names)
        profile = {"profile": recording.end(1)}
    some = names[: options.exact // 16 or 1]
    _, exact = timed(replace(engine, inference=replace(found, tolerance=0)).log_probs, some, 1)
    return {
        "model": f"{NAMES[architecture]} (random weights)",
        "method": "likely tokens, as a trained SmolLM2 asks",
        "precision": precision,
        "products": len(names),
        "labels": len(leader.labels),
        "names_at_once": lot,
        "passes": round(counted.passes / (options.repeats + 1)),
        "tolerance": tolerance,
        "tokens_per_product": round(tokens, 1),
        "products_per_s": round(rate, 1),
        "tokens_per_s": round(rate * tokens),
        "all_tokens_products": len(some),
        "all_tokens_products_per_s": round(exact, 1),
        "bound_bf16_products_per_s": round(top * 1e12 / (2 * matrix_weights(config) * tokens)),
        "ceiling_tflops": round(top),
        "peak_gib": round(peak(), 1),
        **profile,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a trained run with the objective completion")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--models", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 1e-3, 1e-2])
    parser.add_argument("--at-once", nargs="+", type=int, default=[AT_ONCE], help="names of a lot, for the 7B shapes")
    parser.add_argument("--names", type=int, help="most test names")
    parser.add_argument("--exact", type=int, default=1024, help="names that are scored by the whole tree")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--name", default="completion_speed", help="of the result file")
    parser.add_argument("--record", type=Path, help="write what the trained run answers into this .npz, and end")
    parser.add_argument("--answers", type=Path, help="a recorded .npz, of the same names and tolerances")
    parser.add_argument("--profile", action="store_true", help="where the time of a 7B shape goes, by kernel")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options = parser.parse_args()
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    every = held_out(options.run, options.catalogue)
    products = list({product.text: product for product in every}.values())[: options.names]
    names = [product.text for product in products[:LED]]
    if options.record:
        from shelfwise.classifier import Classifier

        engine = Classifier.load(options.run, which="model", precision="fp32").scorer
        kept(recorded(engine, names, options), options.record)
        return
    top = ceiling()
    rows: list[dict[str, Any]] = []
    if options.answers:
        leader = reread(options.run, options.answers)
    else:
        rows, engine = trained(options.run, products, options)
        _bench.write(options.name, rows, options.out)
        leader = recorded(engine, names, options)
    for architecture in options.models:
        settings = itertools.product(options.precisions, options.tolerances, options.at_once)
        for precision, tolerance, lot in settings:
            gc.collect()
            forget()
            rows.append(led(architecture, precision, tolerance, lot, leader, names, top, options))
            _bench.say(rows[-1])
            _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
