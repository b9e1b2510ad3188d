"""Kill a reviewing process at random moments, and look for decisions that were lost or doubled.

    python benchmarks/review_kill.py [--kills 200] [--store URL]

The process loads rows, accepts, corrects, skips and takes back, and acknowledges each request after it is committed
(`tests/support/kills.py`, which the unit tests run 20 times). After each kill everything acknowledged must be there
once, the items must say what the record says, a request in flight must be repeatable, and SQLite's integrity check
must pass; the first failure ends the script with an error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import _bench

sys.path.insert(0, str(_bench.ROOT / "tests"))
from support.kills import Kills

LONGEST_S = 0.5  # from the first request to the kill


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--store", help="default: a new SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills = Kills(options.store or str(Path(folder) / "review.db"))
        started = time.monotonic()
        for seed in range(options.kills):
            kills.kill_once(seed, LONGEST_S)
            if seed % 20 == 19:
                _bench.say(f"{seed + 1} kills, {len(kills.acknowledged):,} decisions acknowledged")
    row = {
        "store": "postgresql" if options.store else "sqlite",
        "kills": kills.lives,
        "acknowledged": len(kills.acknowledged),
        "rows_loaded": len(kills.origins),
        "in_flight": kills.in_flight,
        "in_flight_stored": kills.in_flight_stored,
        "lost": 0,
        "doubled": 0,
        "seconds": round(time.monotonic() - started, 1),
    }
    _bench.say(row)
    _bench.say(_bench.write("review_kill" + ("_postgresql" if options.store else ""), [row]))


if __name__ == "__main__":
    main()
