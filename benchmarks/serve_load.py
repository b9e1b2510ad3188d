"""The service under load: throughput, latency, a flood, and clients that behave badly. All on this machine.

    python benchmarks/serve_load.py [--models baseline tiny-llama] [--seconds 10] [--soak 60] [--idle 1000]

`rising`: requests of one name leave evenly at a share of what the service can do (open loop; a request's time counts
from when it was due), with micro-batching and without it (--max-batch 1). What it can do is measured first: 64 clients
that ask again as soon as they are answered; with `wrk` where that is installed. `flood`: three times as much for a
while, of single names and of lists of 50; how much is refused, how quickly, what the memory does, and how soon
afterwards service is as before. `soak`: slow readers, half-sent bodies, disconnects, bodies of 100 MB, deep JSON, null
bytes, idle connections, all at once, while every other answer is compared with the classifier's own.

Client and service share the cores. `client_late_p50_ms` is how far behind the client itself was when it sent: where
that is more than a few milliseconds, the times of that row are the client's as much as the service's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import _bench
import _load
from _soak import Soak, names_of

CLIENTS = 64
SHARES = (0.25, 0.5, 0.75, 0.9)
FLOOD = 3.0
LIST = 50
PATH = "/v1/classify"


@dataclass
class Service:
    process: subprocess.Popen[str]
    port: int

    @property
    def mib(self) -> float:
        return round(psutil.Process(self.process.pid).memory_info().rss / 2**20, 1)

    @property
    def files(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            body: bytes = answer.read()
            return body


@contextmanager
def service(run: Path, log: Path, *options: str) -> Iterator[Service]:
    command = [sys.executable, "-m", "shelfwise", "serve", str(run), "--port", "0", "--drain-delay", "0", *options]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)\s*$", process.stdout.readline())
            if found is None:
                raise SystemExit(f"the service did not start; see {log}")
            started = Service(process, int(found[1]))
            _wait_until_ready(started)
            yield started
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                raise SystemExit(f"the service ended with status {process.returncode}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait_until_ready(started: Service) -> None:
    ends_s = time.monotonic() + 120
    while True:
        try:
            started.get("/readyz")
            return
        except OSError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.1)


def single(names: Sequence[str]) -> list[bytes]:
    return [_load.request(PATH, json.dumps({"products": name}).encode()) for name in names]


def lists(names: Sequence[str]) -> list[bytes]:
    return [
        _load.request(PATH, json.dumps({"products": list(names[i : i + LIST])}).encode())
        for i in range(0, len(names) - LIST + 1, LIST)
    ]


def capacity(port: int, requests: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """How many requests a second 64 clients get answered."""
    if shutil.which("wrk") is None:
        outcome = asyncio.run(_load.closed_loop(port, CLIENTS, seconds, requests))
        found = {"p50_ms": outcome.percentile(0.5), "p99_ms": outcome.percentile(0.99)}
        return {"client": "asyncio", "requests_per_s": outcome.per_s(), **found}
    bodies = [sent.partition(b"\r\n\r\n")[2].decode() for sent in requests]
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as script:
        script.write(_LUA.replace("BODIES", ",".join(f"[==[{body}]==]" for body in bodies)))
        script.flush()
        words = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{max(1, round(seconds))}s", "--latency", "-s", script.name]
        asked = subprocess.run([*words, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True)
    if "Non-2xx" in asked.stdout:
        raise SystemExit(asked.stdout)
    return {
        "client": "wrk",
        "requests_per_s": float(re.findall(r"Requests/sec:\s*([\d.]+)", asked.stdout)[0]),
        "p50_ms": _wrk_ms(asked.stdout, "50%"),
        "p99_ms": _wrk_ms(asked.stdout, "99%"),
    }


_LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local bodies, i = {BODIES}, 0
request = function()
  i = i % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[i])
end
"""


def _wrk_ms(said: str, share: str) -> float:
    number, unit = re.findall(rf"{re.escape(share)}\s+([\d.]+)(us|ms|s)", said)[0]
    return round(float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit], 2)


def rising(run: Path, names: Sequence[str], seconds: float, log: Path) -> list[dict[str, Any]]:
    rows = []
    for batching in (True, False):
        with service(run, log, *([] if batching else ["--max-batch", "1"])) as started:
            requests = single(names)
            asyncio.run(_load.open_loop(started.port, 20, 1, requests))  # warms both sides
            can = capacity(started.port, requests, seconds)
            common = {"load": "rising", "batching": batching}
            rows.append({**common, "clients": CLIENTS, **can})
            _bench.say(rows[-1])
            for share in SHARES:
                rate = share * can["requests_per_s"]
                outcome = asyncio.run(_load.open_loop(started.port, rate, seconds, requests))
                rows.append({**common, "of_capacity": share, **_figures(outcome, rate)})
                _bench.say(rows[-1])
    return rows


def _figures(outcome: _load.Outcome, rate: float) -> dict[str, Any]:
    return {
        "offered_per_s": round(rate, 1),
        "requests_per_s": outcome.per_s(),
        "p50_ms": outcome.percentile(0.5),
        "p99_ms": outcome.percentile(0.99),
        "refused_share": outcome.share("429"),
        "refused_p50_ms": outcome.percentile(0.5, "429"),
        "refused_p99_ms": outcome.percentile(0.99, "429"),
        "client_late_p50_ms": _load.percentile(outcome.late_ms, 0.5),
        "others": sum(n for status, n in outcome.statuses.items() if status not in ("200", "429")),
    }


def flood(run: Path, names: Sequence[str], seconds: float, log: Path) -> list[dict[str, Any]]:
    """Three times what the service can do, then a quarter of it."""
    rows = []
    for what, requests in (("one name", single(names)), (f"{LIST} names", lists(names))):
        with service(run, log) as started:
            per_s = capacity(started.port, requests, seconds)["requests_per_s"]
            calm = asyncio.run(_load.open_loop(started.port, 0.25 * per_s, 3, requests))
            before_mib = started.mib
            outcome, peak_mib = asyncio.run(_flooded(started, FLOOD * per_s, seconds, requests))
            row = {"load": "flood", "request": what, **_figures(outcome, FLOOD * per_s)}
            row |= {"before_mib": before_mib, "peak_mib": peak_mib}
            row["recovered_s"] = asyncio.run(_recovered(started.port, 0.25 * per_s, requests, calm))
            rows.append({**row, "after_mib": started.mib})
            _bench.say(rows[-1])
    return rows


async def _flooded(
    started: Service, rate: float, seconds: float, requests: Sequence[bytes]
) -> tuple[_load.Outcome, float]:
    loading = asyncio.ensure_future(_load.open_loop(started.port, rate, seconds, requests))
    peak = started.mib
    while not loading.done():
        peak = max(peak, started.mib)
        await asyncio.sleep(0.2)
    return loading.result(), peak


async def _recovered(port: int, rate: float, requests: Sequence[bytes], calm: _load.Outcome) -> float | None:
    """Seconds until half a second passes with nothing refused and a median no more than twice that of before."""
    began_s = time.perf_counter()
    usual_ms = calm.percentile(0.5) or 0.0
    while time.perf_counter() - began_s < 60:
        outcome = await _load.open_loop(port, rate, 0.5, requests)
        median_ms = outcome.percentile(0.5)
        if outcome.share("200") == 1 and median_ms is not None and median_ms <= 2 * usual_ms + 1:
            return round(time.perf_counter() - began_s, 1)
    return None


def soak(run: Path, names: Sequence[str], seconds: float, idle: int, log: Path) -> dict[str, Any]:
    from shelfwise.classifier import Classifier

    predictions = Classifier.load(run).predict(names, top_k=1)
    right = {
        name: {"type": each.label, "confidence": each.confidence} for name, each in zip(names, predictions, strict=True)
    }
    with service(run, log) as started:
        asyncio.run(Soak(started.port, right, min(15.0, seconds), idle).run())  # until memory has its working size
        before_mib = started.mib
        tried = Soak(started.port, right, seconds, idle, seed=1)
        asyncio.run(tried.run())
        time.sleep(12)  # what was left open is closed by then
        started.get("/readyz")
        row = {"load": "soak", "seconds": seconds, "idle_connections": idle, "wrong_answers": len(tried.wrong)}
        row |= {"before_mib": before_mib, "after_mib": started.mib, "open_files_after": started.files}
        row["checked_answers"] = tried.seen["checker 200"]
        row["seen"] = dict(sorted(tried.seen.items()))
    row["errors_in_log"] = sum('"level": "error"' in line for line in log.read_text(encoding="utf-8").splitlines())
    _bench.say(row)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["baseline", "tiny-llama"])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--soak", type=float, default=60.0, help="seconds; 600 is the real one; 0 leaves it out")
    parser.add_argument("--idle", type=int, default=1_000, help="idle connections of the soak")
    parser.add_argument("--only", nargs="+", choices=("rising", "flood", "soak"), default=["rising", "flood", "soak"])
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    from shelfwise.config import parse
    from shelfwise.data import sample
    from shelfwise.data.catalogue import read_catalogue
    from shelfwise.pipelines.train import train

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    catalogue = Path(sample.__file__).parent / "catalogue.csv"
    names = names_of([product.name for product in read_catalogue(catalogue).products], 2_000)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            run, log = Path(folder) / model, Path(folder) / f"{model}.log"
            method = {} if model == "baseline" else {"method": "full"}
            train(parse({"catalogue": str(catalogue), "model": model, **method}, "benchmark"), run, device="cpu")
            found: list[dict[str, Any]] = []
            if "rising" in options.only:
                found += rising(run, names, options.seconds, log)
            if "flood" in options.only:
                found += flood(run, names, options.seconds, log)
            if "soak" in options.only and options.soak:
                found.append(soak(run, names, options.soak, options.idle, log))
            rows += ({"model": model, "cores": os.cpu_count(), **row} for row in found)
    _bench.write("serve_load", rows, options.out)


if __name__ == "__main__":
    main()
