"""`shelfwise serve` in a process of its own, for benchmarks, and what its /metrics tell."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ENDING_S = 60.0


@dataclass
class Service:
    """One that runs."""

    process: subprocess.Popen[str]
    port: int

    @property
    def mib(self) -> float:
        return round(psutil.Process(self.process.pid).memory_info().rss / 2**20, 1)

    @property
    def files(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            body: bytes = answer.read()
            return body


@contextmanager
def service(run: Path, log: Path, *options: str, patience_s: float = 120.0) -> Iterator[Service]:
    """Serve a run folder on a free port, from when it is ready; ends it with SIGTERM and asks for status 0."""
    command = [sys.executable, "-m", "shelfwise", "serve", str(run), "--port", "0", "--drain-delay", "0", *options]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)\s*$", process.stdout.readline())
            if found is None:
                raise SystemExit(f"the service did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")
            started = Service(process, int(found[1]))
            _wait_until_ready(started, log, patience_s)
            yield started
            process.send_signal(signal.SIGTERM)
            if process.wait(ENDING_S) != 0:
                raise SystemExit(f"the service ended with status {process.returncode}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait_until_ready(started: Service, log: Path, patience_s: float) -> None:
    ends_s = time.monotonic() + patience_s
    while True:
        try:
            started.get("/readyz")
            return
        except OSError:
            if started.process.poll() is not None or time.monotonic() > ends_s:
                raise SystemExit(f"the service is not ready:\n{log.read_text(encoding='utf-8')[-4000:]}") from None
            time.sleep(0.1)


@dataclass(frozen=True)
class Histogram:
    """One of Prometheus's histograms between two moments."""

    buckets: tuple[tuple[float, float], ...]  # (upper end in seconds, how many up to it)
    total: float  # seconds, or whatever is counted
    count: float

    @classmethod
    def between(
        cls, before: Mapping[str, float], after: Mapping[str, float], name: str, labels: Sequence[str] = ()
    ) -> Histogram:
        """Summed over all children whose labels hold all of `labels`, each as 'route="/v1/classify"'."""
        ends: dict[float, float] = {}
        total = count = 0.0
        for key, value in after.items():
            found, _, rest = key.partition("{")
            if not found.startswith(f"shelfwise_{name}_") or not all(label in rest for label in labels):
                continue
            more = value - before.get(key, 0.0)
            if found.endswith("_bucket"):
                end = float(re.findall(r'le="([^"]+)"', rest)[0])
                ends[end] = ends.get(end, 0.0) + more
            elif found.endswith("_sum"):
                total += more
            elif found.endswith("_count"):
                count += more
        return cls(tuple(sorted(ends.items())), total, count)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def percentile(self, share: float) -> float | None:
        """Straight lines between the ends of the buckets; None without a value, or beyond the last end."""
        wanted, low, seen = share * self.count, 0.0, 0.0
        for end, up_to in self.buckets:
            if self.count and up_to >= wanted and end != float("inf"):
                return low + (end - low) * (wanted - seen) / max(up_to - seen, 1e-9)
            low, seen = end, up_to
        return None


def measured(started: Service) -> dict[str, float]:
    """Every number of /metrics, by its name with its labels."""
    lines = started.get("/metrics").decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}
