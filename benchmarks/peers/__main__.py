"""Runs the comparison: `make bench PEERS="triton litserve"`, or
`PYTHONPATH=benchmarks python -m peers triton litserve [--seconds 8]`.

Prints `RESULT <peer> <measure> <ours> <theirs> <ratio>` for each measure, and keeps everything in `results.json`: a
peer that is measured again replaces its own part. docs/comparison.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from peers import load, results, servers
from peers.catalogue import PEERS
from peers.compare import compare, look_at_ours
from peers.environments import NotInstallable
from peers.load import LoadError
from peers.measure import Work, WrongAnswers
from peers.processes import ServerFailed
from peers.work import draw_texts, read_vocabulary

_LENGTHS = servers.HERE.parent / "lengths.json"
_NUM_TEXTS = 2000
_NUM_CHECKED = 50
_SEED = 1


def main() -> int:
    """Returns the exit code: 1 if a peer that was asked for gave no result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+", choices=sorted(PEERS), metavar="PEER")
    parser.add_argument(
        "--seconds",
        type=float,
        default=float(os.environ.get("SECONDS_EACH") or 8),
        help="of each measurement; with less than 4 the sweeps are short too [SECONDS_EACH, 8]",
    )
    parser.add_argument("--lengths", choices=("SST", "IMDB"), default="SST", help="whose lengths the texts have")
    parser.add_argument("--output", type=Path, default=servers.HERE / "results.json")
    options = parser.parse_args()
    # So that a stop from outside unwinds, and stops the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    counts = json.loads(_LENGTHS.read_text())[options.lengths]
    texts = draw_texts(read_vocabulary(servers.PACKAGE), counts, _NUM_TEXTS, _SEED)
    run = results.describe_run(options.lengths, texts, options.seconds, load.generators())
    for note in load.missing():
        print(f"NOTE {note}", flush=True)
    try:
        work = Work(texts, servers.reference(texts[:_NUM_CHECKED]), options.seconds)
        ours = look_at_ours(work)
    except (ServerFailed, LoadError, WrongAnswers) as error:
        print(f"NO RESULT conveyor: {' '.join(str(error).split())}", flush=True)
        return 1
    failed = 0
    for name in options.peers:
        try:
            compared = compare(name, ours, work)
        except (NotInstallable, ServerFailed, LoadError, WrongAnswers) as error:
            failed += 1
            print(f"NO RESULT {name}: {' '.join(str(error).split())}", flush=True)
            continue
        for line in compared.lines(name):
            print(line, flush=True)
        results.keep(options.output, name, run, ours, compared)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
