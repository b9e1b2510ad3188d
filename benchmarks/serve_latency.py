"""How soon a single name is answered by LLaMA2-7B or Falcon-7B at its true shape, behind the real service.

    python benchmarks/serve_latency.py CATALOGUE --work DIR --out benchmarks/results [--models llama falcon] [--tiny]

Random weights at the true shapes, a run folder made by `shelfwise.train` (LoRA, two steps), `shelfwise serve` in a
process of its own, and HTTP over loopback. `alone`: one request at a time, each with another name of the catalogue.
`open loop`: requests at random moments (Poisson arrivals), --rates of them a second, whether or not earlier ones were
answered; a request's time counts from when it was due, so nothing that waits is left out.

`p50_ms` and `p99_ms` are the client's. `request_*` are the service's own, from the headers to the last byte; `queue_*`
until a request got into a batch; `model_*` of one batch. What HTTP and the client cost is `p50_ms` less what the
service took. `client_late_p99_ms` is how far behind the client was: where it is large, the client is what was measured.
`server_cpu` is how many cores the service's process kept busy.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _bench
import _latency
from _service import Histogram, Service, measured, service
from training_speed import NAMES, PLAINLY
from true_size import base_model

PATH = "/v1/classify"
STEPS, BATCH = 2, 32
LOADING_S = 400.0


def make_run(base: Path, run: Path, catalogue: Path) -> None:
    """A run folder with a LoRA of a few steps; what it answers means nothing."""
    from shelfwise.config import parse
    from shelfwise.pipelines.train import train

    shutil.rmtree(run, ignore_errors=True)
    values = {
        "catalogue": str(catalogue),
        "model": str(base),
        "method": "lora",
        "baseline": False,
        "split": {"strategy": "random", "validation_size": 0},
        "training": {**PLAINLY, "max_steps": STEPS, "batch_size": BATCH, "micro_batch_size": BATCH, "packed": False,
                     "evaluations_per_epoch": 0},
    }  # fmt: skip
    train(parse(values, "serve_latency"), run)


def load(started: Service, what: dict[str, Any], requests: Sequence[bytes], options: argparse.Namespace) -> _row:
    """One load: alone, or at a rate."""
    before, cpu_s, began_s = measured(started), started.cpu_s, time.perf_counter()
    if "offered_per_s" in what:
        seconds, processes = options.seconds, options.clients
        heard = _latency.open_loop(started.port, requests, what["offered_per_s"], seconds, processes, options.seed)
    else:
        heard = _latency.alone(started.port, requests[: options.requests])
    cpu = (started.cpu_s - cpu_s) / (time.perf_counter() - began_s)
    after = measured(started)
    answered = heard.statuses["200"]
    row = {
        **what,
        "requests": sum(heard.statuses.values()),
        "requests_per_s": round(answered / max(heard.seconds, 1e-9), 1),
        "refused_share": heard.share("429"),
        "others": heard.others,
        **{f"p{name}_ms": heard.percentile(share) for name, share in _SHARES.items()},
        "max_ms": heard.percentile(1.0),
        "client_late_p50_ms": _latency.percentile(heard.late_ms, 0.5),
        "client_late_p99_ms": _latency.percentile(heard.late_ms, 0.99),
        "server_cpu": round(cpu, 2),
    }
    route = [f'route="{PATH}"']
    for name, histogram in {
        "request": Histogram.between(before, after, "request_seconds", route),
        "queue": Histogram.between(before, after, "queue_seconds"),
        "model": Histogram.between(before, after, "batch_seconds"),
    }.items():
        row[f"{name}_mean_ms"] = round(histogram.mean * 1000, 2)
        for share in (0.5, 0.99):
            found = histogram.percentile(share)
            row[f"{name}_p{share * 100:g}_ms"] = None if found is None else round(found * 1000, 2)
    row["products_a_batch"] = round(Histogram.between(before, after, "batch_products").mean, 2)
    return row


_row = dict[str, Any]
_SHARES = {"50": 0.5, "90": 0.9, "99": 0.99, "99_9": 0.999}


def measure(architecture: str, run: Path, requests: Sequence[bytes], options: argparse.Namespace) -> list[_row]:
    common = {"model": f"{NAMES[architecture]} (random weights)", "method": "lora", "objective": "head"}
    common |= {"precision": options.precision, "tiny": options.tiny, "serve_options": " ".join(options.serve_options)}
    loads: list[_row] = [{"load": "alone"}, *({"load": "open loop", "offered_per_s": rate} for rate in options.rates)]
    rows = []
    began_s = time.perf_counter()
    words = ["--precision", options.precision, *options.serve_options]
    log = options.work / f"{architecture}-serve.log"
    with service(run, log, *words, patience_s=LOADING_S) as started:
        loaded_s = round(time.perf_counter() - began_s, 1)
        _bench.say(f"{architecture}: ready after {loaded_s} s")
        for rate in options.rates:  # until every shape has been seen
            _latency.open_loop(started.port, requests, rate, options.warm, options.clients, seed=-1)
        for what in loads:
            rows.append({**common, "ready_s": loaded_s, **load(started, what, requests, options)})
            _bench.say(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue", type=Path)
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--models", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--requests", type=int, default=2_000, help="of the load `alone`, each another name")
    parser.add_argument("--rates", nargs="+", type=float, default=[500.0], help="requests a second of the open loops")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each open loop")
    parser.add_argument("--warm", type=float, default=5.0, help="seconds of each rate before anything is measured")
    parser.add_argument("--clients", type=int, default=4, help="processes that send")
    parser.add_argument("--precision", default="auto", help="as `shelfwise serve` takes it")
    parser.add_argument("--serve-options", nargs="+", default=[], help="words for `shelfwise serve`; give them last")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the order of names")
    parser.add_argument("--name", default="serve_latency", help="of the result file")
    parser.add_argument("--keep", action="store_true", help="what is made in --work, for the next benchmark")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try the script on a CPU")
    options, rest = parser.parse_known_args()
    options.serve_options += rest
    from shelfwise import artifact
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.finetune import quiet_libraries

    quiet_libraries()
    texts = [product.text for product in read_catalogue(options.catalogue).products]
    names = list(dict.fromkeys(texts))
    random.Random(options.seed).shuffle(names)
    requests = [_latency.request(PATH, json.dumps({"products": name}).encode()) for name in names]
    options.work.mkdir(parents=True, exist_ok=True)
    rows: list[_row] = []
    for architecture in options.models:
        run = options.work / f"{architecture}-run"
        with base_model(architecture, texts, options) as base:
            try:
                if not (options.keep and (run / artifact.MANIFEST).is_file()):
                    make_run(base, run, options.catalogue)
                _forget()
                rows += measure(architecture, run, requests, options)
            except (Exception, SystemExit) as error:  # one that fails is recorded, and the others still run
                traceback.print_exc()
                rows.append({"model": NAMES[architecture], "error": f"{type(error).__name__}: {error}"[-2000:]})
            _bench.write(options.name, rows, options.out)


def _forget() -> None:
    """Leave the card to the service."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
