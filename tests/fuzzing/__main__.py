"""Command line: damage and read many files, or one again."""

import argparse
import collections
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from fuzzing.cases import FINE, Outcome, Subject, damaged
from fuzzing.kinds import all_kinds
from fuzzing.pool import read_all

REPORT_EVERY = 500


def main() -> int:
    """Return 0 if there are no findings."""
    parser = argparse.ArgumentParser(prog="python -m fuzzing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="damage and read many files")
    run.add_argument("--count", type=int, default=10_000)
    run.add_argument("--seed", type=int, default=0, help="first seed; the others follow")
    run.add_argument("--kind", nargs="*", help="names, or beginnings of names; default: all")
    run.add_argument("--workers", type=int, default=1)
    run.add_argument("--output", type=Path, help="file for all outcomes, one JSON object a line")
    replay = commands.add_parser("replay", help="read one damaged file in this process, with a traceback")
    replay.add_argument("kind")
    replay.add_argument("seed", type=int)
    read = commands.add_parser("read", help="read a given file in place of the one of a kind")
    read.add_argument("kind")
    read.add_argument("file", type=Path)
    commands.add_parser("kinds", help="list the kinds")
    options = parser.parse_args()
    if options.command == "kinds":
        print("\n".join(all_kinds()))
        return 0
    return _run(options) if options.command == "run" else _replay(options)


def _run(options: argparse.Namespace) -> int:
    names = [n for n in all_kinds() if not options.kind or any(n.startswith(given) for given in options.kind)]
    cases = [
        (name, seed)
        for name in names
        for seed in range(options.seed, options.seed + -(-options.count // len(names)))
    ]
    counts: collections.Counter[str] = collections.Counter()
    findings: list[Outcome] = []
    begin = time.monotonic()
    with open(options.output or "/dev/null", "a") as log:
        for number, outcome in enumerate(read_all(cases, options.workers), 1):
            print(json.dumps(dataclasses.asdict(outcome)), file=log, flush=True)
            counts[outcome.answer] += 1
            if outcome.answer not in FINE:
                findings.append(outcome)
                print(f"{outcome.kind} {outcome.seed}: {outcome.answer}: {outcome.what}", flush=True)
            if number % REPORT_EVERY == 0:
                print(
                    f"{number} of {len(cases)} files, {len(findings)} findings, {time.monotonic() - begin:.0f} s",
                    file=sys.stderr,
                )
    print(f"{len(cases)} files of {len(names)} kinds: {dict(counts)}")
    return 1 if findings else 0


def _replay(options: argparse.Namespace) -> int:
    kind = all_kinds()[options.kind]
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        subject = Subject(kind, Path(folder) / "case")
        subject.read_valid()
        valid = (subject.folder / kind.file).read_bytes()
        data = options.file.read_bytes() if options.command == "read" else damaged(kind, valid, options.seed)
        outcome = subject.read_bytes(data)
        print(f"{kind.name}: {outcome.answer} {outcome.what} {outcome.seconds} s, {outcome.mib} MiB")
        if outcome.answer not in FINE:
            print(f"the file: {data[:2000]!r}")
            kind.read(subject.folder)
    return 0 if outcome.answer in FINE else 1


if __name__ == "__main__":
    sys.exit(main())
