"""The service under load: throughput, latency, a flood, and clients that behave badly. All on this machine.

    python benchmarks/serve_load.py [--models baseline tiny-llama] [--seconds 10] [--soak 60] [--idle 1000]

`rising`, with micro-batching and without it (--max-batch 1): first `wrk` with ever more connections, each of which asks
again as soon as it is answered (closed loop); the most that it gets answered is what the service can do. Then requests
of one name at random moments at shares of that (open loop; a request's time counts from when it was due). `flood`:
three times as much as it can do, of single names and of lists of 50; how much is refused, how quickly, what the memory
does, and how soon afterwards service is as before. `soak`: slow readers, half-sent bodies, disconnects, bodies of 100
MB, deep JSON, null bytes, idle connections, all at once, while answers are compared with the classifier's own.

Client and service share the cores. `client_late_p50_ms` is how far behind the client itself was when it sent; `wire`
times count from then. `server_cpu` is how many cores the service kept busy.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _bench
import _latency
from _service import Service, service
from _soak import names_of
from _soak import soak as soak_clients

CONNECTIONS = (1, 8, 32, 96)
PROCESSES = 2  # of the open loop's client
AFTER_S = 6.0  # after a flood
SHARES = (0.25, 0.5, 0.75, 0.9)
FLOOD = 3.0
LIST = 50
PATH = "/v1/classify"


def single(names: Sequence[str]) -> list[bytes]:
    return [_latency.request(PATH, json.dumps({"products": name}).encode()) for name in names]


def lists(names: Sequence[str]) -> list[bytes]:
    return [
        _latency.request(PATH, json.dumps({"products": list(names[i : i + LIST])}).encode())
        for i in range(0, len(names) - LIST + 1, LIST)
    ]


def closed_loop(
    port: int, requests: Sequence[bytes], seconds: float, connections: int, *, refusals: bool = False
) -> dict[str, Any]:
    """What `wrk` measures with so many clients that ask again as soon as they are answered; refusals don't count."""
    bodies = [sent.partition(b"\r\n\r\n")[2].decode() for sent in requests]
    with tempfile.NamedTemporaryFile("w", suffix=".lua", encoding="utf-8") as script:
        script.write(_LUA.replace("BODIES", ",".join(f"[==[{body}]==]" for body in bodies)))
        script.flush()
        words = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", script.name]
        asked = subprocess.run([*words, f"http://127.0.0.1:{port}{PATH}"], capture_output=True, text=True, check=True)
    refused = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", asked.stdout)))
    if refused and not refusals:
        raise SystemExit(asked.stdout)
    rate = float(re.findall(r"Requests/sec:\s*([\d.]+)", asked.stdout)[0])
    asked_times = int(re.findall(r"(\d+) requests in", asked.stdout)[0])
    return {
        "client": "wrk",
        "connections": connections,
        "requests_per_s": round(rate * (1 - refused / asked_times), 2),
        "p50_ms": _wrk_ms(asked.stdout, "50%"),
        "p99_ms": _wrk_ms(asked.stdout, "99%"),
    }


def capacity(port: int, requests: Sequence[bytes], seconds: float) -> float:
    """The most requests a second that get answered, with few clients or with many."""
    counts = CONNECTIONS[1:]
    return max(closed_loop(port, requests, seconds, n, refusals=True)["requests_per_s"] for n in counts)


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
            requests, common = single(names), {"load": "rising", "batching": batching}
            closed_loop(started.port, requests, 2, 8)  # warms it
            for connections in CONNECTIONS:
                cpu_s = started.cpu_s
                row = {**common, **closed_loop(started.port, requests, seconds, connections)}
                rows.append({**row, "server_cpu": round((started.cpu_s - cpu_s) / seconds, 2)})
                _bench.say(rows[-1])
            most = max(row["requests_per_s"] for row in rows if row["batching"] == batching)
            for share in SHARES:
                heard = _open_loop(started.port, share * most, seconds, requests)
                rows.append({**common, "client": "open loop", "of_capacity": share, **_figures(heard, share * most)})
                _bench.say(rows[-1])
    return rows


def _open_loop(port: int, rate: float, seconds: float, requests: Sequence[bytes]) -> _latency.Heard:
    return _latency.open_loop(port, requests, rate, seconds, PROCESSES, seed=0)


def _figures(heard: _latency.Heard, rate: float) -> dict[str, Any]:
    refused = heard.wire_ms.get("429", ())
    return {
        "offered_per_s": round(rate, 1),
        "requests_per_s": round(heard.statuses["200"] / max(heard.seconds, 1e-9), 1),
        "p50_ms": heard.percentile(0.5),
        "p99_ms": heard.percentile(0.99),
        "wire_p50_ms": _latency.percentile(heard.wire_ms.get("200", ()), 0.5),
        "refused_share": heard.share("429"),
        "refused_p50_ms": heard.percentile(0.5, "429"),
        "refused_p99_ms": heard.percentile(0.99, "429"),
        "refused_wire_p50_ms": _latency.percentile(refused, 0.5),
        "refused_wire_p99_ms": _latency.percentile(refused, 0.99),
        "client_late_p50_ms": _latency.percentile(heard.late_ms, 0.5),
        "others": sum(heard.others.values()),
    }


def flood(run: Path, names: Sequence[str], seconds: float, log: Path) -> list[dict[str, Any]]:
    """Three times what the service can do, then a quarter of it."""
    rows = []
    for what, requests in (("one name", single(names)), (f"{LIST} names", lists(names))):
        with service(run, log) as started:
            most = capacity(started.port, requests, seconds)
            calm = _open_loop(started.port, most / 4, 3, requests)
            before_mib, peak_mib, cpu_s = started.mib, [], started.cpu_s
            over = threading.Event()
            watch = threading.Thread(target=_watch, args=(started, peak_mib, over))
            watch.start()
            heard = _open_loop(started.port, FLOOD * most, seconds, requests)
            ended_s = time.perf_counter() - max(0.0, heard.seconds - seconds)
            cpu = (started.cpu_s - cpu_s) / heard.seconds
            over.set()
            watch.join()
            after = _open_loop(started.port, most / 4, AFTER_S, requests)
            row = {"load": "flood", "request": what, "capacity_per_s": most, **_figures(heard, FLOOD * most)}
            row |= {"server_cpu": round(cpu, 2), "calm_p50_ms": calm.percentile(0.5)}
            row |= {"before_mib": before_mib, "peak_mib": max(peak_mib), "after_mib": started.mib}
            rows.append({**row, "recovered_s": _recovered(after, ended_s, calm.percentile(0.5) or 0.0)})
            _bench.say(rows[-1])
    return rows


def _watch(started: Service, mib: list[float], over: threading.Event) -> None:
    mib.append(started.mib)
    while not over.wait(0.2):
        mib.append(started.mib)


def _recovered(after: _latency.Heard, ended_s: float, usual_ms: float) -> float | None:
    """Seconds from the end of the flood until half a second in which nothing is refused and the median is no more than
    twice that of before; None where there was none."""
    asked = sorted(
        (due_s, status == "200", ms)
        for status in after.ms
        for due_s, ms in zip(after.due_s[status], after.ms[status], strict=True)
    )
    for part in range(int(2 * AFTER_S)):
        from_s = asked[0][0] + part / 2
        here = [(answered, ms) for due_s, answered, ms in asked if from_s <= due_s < from_s + 0.5]
        if here and all(ok for ok, _ in here) and statistics.median(ms for _, ms in here) <= 2 * usual_ms + 1:
            return round(max(0.0, from_s - ended_s), 1)
    return None


def soak(run: Path, names: Sequence[str], seconds: float, idle: int, log: Path) -> dict[str, Any]:
    from shelfwise.classifier import Classifier

    predictions = Classifier.load(run).predict(names, top_k=1)
    right = {
        name: {"type": each.label, "confidence": each.confidence} for name, each in zip(names, predictions, strict=True)
    }
    with service(run, log) as started:
        soak_clients(
            started.port, right, min(15.0, seconds), idle, 0, lambda: None
        )  # until memory has its working size
        mib: list[float] = []
        seen, wrong = soak_clients(started.port, right, seconds, idle, 1, lambda: mib.append(started.mib))
        time.sleep(12)  # what was left open is closed by then
        started.get("/readyz")
        row = {"load": "soak", "seconds": seconds, "idle_connections": idle, "wrong_answers": len(wrong)}
        row["mib_by_minute"] = [statistics.median(mib[i : i + 60]) for i in range(0, len(mib), 60)]
        row |= {"after_mib": started.mib, "open_files_after": started.files}
        row["checked_answers"] = seen["checked answers"]
        row["seen"] = dict(sorted(seen.items()))
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

    if shutil.which("wrk") is None and {"rising", "flood"} & set(options.only):
        raise SystemExit("wrk is not installed: apt-get install wrk, or --only soak")
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
