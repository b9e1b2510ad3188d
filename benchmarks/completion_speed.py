"""How fast the objective `completion` answers with the whole distribution over BigBasket's 426 types.

    python benchmarks/completion_speed.py CATALOGUE --run RUN --out benchmarks/results [--models llama falcon]

RUN is a trained SmolLM2 run with that objective. Its answers on the test names come first: asked for likely tokens
alone, for all of them, and as transformers computes them, one mask over the whole tree; with what leaving out changes.

Then LLaMA2-7B and Falcon-7B, at their true shapes. Random weights are sure of nothing, and would ask for the whole
tree. So they pass through all that a trained model asks for, and the trained run says what to ask next (`Led`): the
time is that of a 7B model as sure as SmolLM2-135M is after training, whose answers were written down before. The
vocabulary is SmolLM2's, 49,152 tokens. All times are of scoring, with the tokenizer's, and no two names are the same.
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
from inference_speed import matrix_weights
from shelfwise.modeling.packed import completion as completions
from shelfwise.modeling.packed.completion import Completion
from training_speed import NAMES, ceiling, forget, peak
from true_size import shape

REPEATS = 3


Answers = dict[tuple[int, int], Any]  # by lot and step


@dataclass(frozen=True, slots=True)
class Heard(Completion):
    """Writes down what it is answered."""

    answers: Answers = field(default_factory=dict)

    def _wait(self, number: int, step: int, asked: Any) -> Any:
        self.answers[number, step] = Completion._wait(self, number, step, asked)
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


def trained(run: Path, catalogue: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], Any]:
    """The trained run's own answers on test, three ways and in each precision; and its engine."""
    from shelfwise import artifact, metrics
    from shelfwise import config as configs
    from shelfwise.classifier import Classifier
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.data.split import Splits

    config = configs.load(run / artifact.CONFIG)
    read = read_catalogue(catalogue, config.columns, config.text_columns, labels="required")
    test = Splits.load(run / artifact.SPLIT).parts(read).test
    classifier = Classifier.load(run, which="model")
    known = [product for product in test if product.label in classifier.labels][: options.names]
    texts = [product.text for product in known]
    targets = np.array([classifier.labels.index(product.label or "", "") for product in known])
    del classifier
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


def led(
    architecture: str, precision: str, tolerance: float, engine: Any, names: list[str], top: float, options: Any
) -> dict[str, Any]:
    """A 7B shape led by the trained run."""
    import torch
    from transformers import AutoModelForCausalLM

    from shelfwise.modeling.hardware import DTYPES

    config = shape(architecture, options.tiny)
    leader = engine.inference
    config.vocab_size, config.pad_token_id = leader.head.weight.shape[0], leader.pad_token_id
    torch.manual_seed(0)
    with torch.device(engine.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    ends = engine.encoder.completions(engine.labels.names)
    fp8 = precision == "fp8"
    found = Completion.of(model, ends, dtype=DTYPES["bf16" if fp8 else precision], fp8=fp8)
    assert found is not None
    answers: Answers = {}
    alike = {"tolerance": tolerance, "names_at_once": found.names_at_once}
    replace(engine, inference=with_answers(Heard, replace(leader, **alike), answers)).log_probs(names)
    asking = replace(engine, inference=with_answers(Led, replace(found, **alike), answers))
    with Counted() as counted:
        _, rate = timed(asking.log_probs, names, options.repeats)
        tokens = counted.tokens / (options.repeats + 1) / len(names)
    some = names[: options.exact // 16 or 1]
    _, exact = timed(replace(engine, inference=replace(found, tolerance=0)).log_probs, some, 1)
    return {
        "model": f"{NAMES[architecture]} (random weights)",
        "method": "likely tokens, as a trained SmolLM2 asks",
        "precision": precision,
        "products": len(names),
        "labels": len(engine.labels),
        "names_at_once": found.names_at_once,
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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a trained run with the objective completion")
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--models", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--tolerances", nargs="+", type=float, default=[1e-4, 1e-3, 1e-2])
    parser.add_argument("--names", type=int, help="most test names")
    parser.add_argument("--exact", type=int, default=1024, help="names that are scored by the whole tree")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--name", default="completion_speed", help="of the result file")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options = parser.parse_args()
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    top = ceiling()
    rows, engine = trained(options.run, options.catalogue, options)
    _bench.write(options.name, rows, options.out)
    texts = list(dict.fromkeys(product.text for product in read_catalogue(options.catalogue).products))
    names = texts[: min(2048, options.names or 2048)]
    for architecture in options.models:
        for precision, tolerance in itertools.product(options.precisions, options.tolerances):
            gc.collect()
            forget()
            rows.append(led(architecture, precision, tolerance, engine, names, top, options))
            _bench.say(rows[-1])
            _bench.write(options.name, rows, options.out)


if __name__ == "__main__":
    main()
