"""Prediction of a file far larger than memory: flat memory, and kills that lose nothing.

    python benchmarks/predict_scale.py --model baseline                  10 million names
    python benchmarks/predict_scale.py --model tiny-llama                200,000 names
    python benchmarks/predict_scale.py --model baseline --rows 200000    small

A file of names is generated, of which about a tenth repeat an earlier one and one in a thousand is empty. It is
predicted once without a break, while the memory of the process and of its workers is sampled, and once with `--kills`
SIGKILLs at random moments, resumed each time. Both outputs must be the same, byte by byte. The runs are trained here on
the packaged sample, or named with --run.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _bench

ROWS = {"baseline": 10_000_000, "tiny-llama": 200_000}
TENTHS = 10
POLL_S = 0.1


def write_names(path: Path, rows: int, seed: int = 3) -> Path:
    """Names put together from the words of the packaged sample: most of them new, as in a feed of many sellers."""
    from shelfwise.data import sample
    from shelfwise.data.catalogue import read_catalogue

    products = read_catalogue(sample.catalogue_path()).products
    brands = sorted({product.brand for product in products if product.brand}) or ["Acme"]
    names = [product.name for product in products]
    draw = random.Random(seed)
    earlier: list[str] = []
    with path.open("w", encoding="utf-8") as stream:
        stream.write("sku,product,brand\n")
        for number in range(rows):
            brand = draw.choice(brands)
            if earlier and draw.random() < 0.1:
                name = draw.choice(earlier)
            else:
                name = f"{draw.choice(names)} {brand} {draw.randrange(1, 2_000)} g".replace(",", " ")
                if len(earlier) < 100_000:
                    earlier.append(name)
            stream.write(f"{number},{'' if draw.random() < 0.001 else name},{brand}\n")
    return path


def trained(model: str, folder: Path) -> Path:
    """A run on the packaged sample."""
    from shelfwise import config as configs
    from shelfwise.data import sample
    from shelfwise.pipelines.train import train

    if not (folder / "manifest.json").is_file():
        train(configs.parse({"catalogue": str(sample.catalogue_path()), "model": model}, "benchmark"), folder)
    return folder


@dataclass
class Task:
    """One prediction job as a process of its own."""

    run: Path
    source: Path
    out: Path

    @property
    def parts(self) -> Path:
        return self.out.with_name(f".{self.out.name}.parts")

    def start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "shelfwise", "predict", str(self.run), str(self.source)]
        return subprocess.Popen(
            [*words, "--out", str(self.out), "--resume", "--json"], stdout=subprocess.PIPE, text=True
        )

    def parts_done(self) -> int:
        """Committed parts."""
        try:
            return sum(path.suffix == ".out" for path in self.parts.iterdir())
        except FileNotFoundError:
            return 0


def resident_mib(pid: int) -> float:
    """Memory of a process and its children that is in RAM; 0 once it has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return int(fields["VmRSS"].split()[0]) / 1024 + sum(map(resident_mib, map(int, children)))
    except (FileNotFoundError, KeyError, ProcessLookupError):
        return 0.0


def unbroken(task: Task) -> tuple[dict[str, Any], list[tuple[int, float]]]:
    """Predict without a break: the job's own summary, and (parts done, MiB) samples."""
    process = task.start()
    samples: list[tuple[int, float]] = []
    while process.poll() is None:
        samples.append((task.parts_done(), resident_mib(process.pid)))
        time.sleep(POLL_S)
    assert process.stdout is not None
    summary = json.loads(process.stdout.read())
    return summary, samples


def tenths(samples: list[tuple[int, float]]) -> list[float]:
    """The peak in each tenth of the parts, MiB; loading counts with the first, putting together with the last."""
    last = max(done for done, _ in samples) or 1
    peaks = [0.0] * TENTHS
    for done, mib in samples:
        tenth = min(done * TENTHS // last, TENTHS - 1)
        peaks[tenth] = max(peaks[tenth], mib)
    return peaks


def killed(task: Task, kills: int, parts: int, part_s: float, seed: int = 7) -> int:
    """Predict with kills, spread over the parts and at random moments within them; the number that hit."""
    draw = random.Random(seed)
    hits = 0
    for target in sorted(draw.randrange(parts) for _ in range(kills)):
        process = task.start()
        while process.poll() is None and task.parts_done() < target:
            time.sleep(POLL_S)
        time.sleep(draw.uniform(0, 2 * part_s))
        if process.poll() is None:
            process.kill()
            hits += 1
        process.communicate()
        if process.returncode == 0:
            return hits
        _bench.say(f"kill {hits}: {task.parts_done():,} of {parts:,} parts are done")
    finished = task.start()
    finished.communicate()
    if finished.returncode:
        raise SystemExit("the last resumed job failed")
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(ROWS), default="baseline")
    parser.add_argument("--run", type=Path, help="a run folder, instead of one trained here")
    parser.add_argument("--rows", type=int, help="default: 10,000,000 for the baseline, 200,000 for tiny-llama")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--work", type=Path, default=Path("runs/predict_scale"))
    parser.add_argument("--out", type=Path, default=_bench.RESULTS)
    options = parser.parse_args()
    rows = options.rows or ROWS[options.model]
    options.work.mkdir(parents=True, exist_ok=True)
    run = options.run or trained(options.model, options.work / options.model)
    source = options.work / f"names-{rows}.csv"
    if not source.is_file():
        write_names(source, rows)
    from shelfwise.artifact import sha256

    whole, broken = (Task(run, source, options.work / f"{name}-{options.model}.csv") for name in ("whole", "killed"))
    for task in (whole, broken):
        for path in (task.out, task.out.with_suffix(".rejects.csv")):
            path.unlink(missing_ok=True)
    summary, samples = unbroken(whole)
    peaks, parts = tenths(samples), max(done for done, _ in samples)
    _bench.say(f"{summary['rows']:,} rows, {summary['rows_per_s']:,.0f} rows/s; MiB by tenth:", *map(round, peaks))
    hits = killed(broken, options.kills, parts, summary["seconds"] / parts)
    same = [
        sha256(a) == sha256(b)
        for a, b in (
            (whole.out, broken.out),
            (whole.out.with_suffix(".rejects.csv"), broken.out.with_suffix(".rejects.csv")),
        )
    ]
    row = {
        "model": options.model,
        "rows": summary["rows"],
        "predicted": summary["predicted"],
        "rejected": summary["rejected"],
        "products_per_s": summary["rows_per_s"],
        "seconds": summary["seconds"],
        "input_mib": round(source.stat().st_size / 2**20, 1),
        "output_mib": round(whole.out.stat().st_size / 2**20, 1),
        "peak_mib_by_tenth": [round(peak, 1) for peak in peaks],
        "peak_mib_last_over_first": round(peaks[-1] / peaks[0], 4),
        "kills": hits,
        "identical": all(same),
        "output_sha256": sha256(whole.out),
    }
    _bench.say(json.dumps(row))
    _bench.write(f"predict_scale_{options.model}", [row], options.out)
    if not all(same):
        raise SystemExit("the killed job's output is another one")


if __name__ == "__main__":
    main()
