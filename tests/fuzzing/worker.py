"""A process that reads damaged files: kinds and seeds on standard input, outcomes on standard output."""

import dataclasses
import json
import logging
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(2, 1)  # readers may print
    import torch

    from fuzzing.cases import Subject, lift_limits, limit_next
    from fuzzing.kinds import all_kinds

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    subjects: dict[str, Subject] = {}
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        for line in sys.stdin:
            name, seed = line.split()
            if name not in subjects:
                subjects[name] = Subject(all_kinds()[name], Path(folder) / name)
                subjects[name].read_valid()
            limit_next()
            outcome = subjects[name].read_damaged(int(seed))
            lift_limits()
            print(json.dumps(dataclasses.asdict(outcome)), file=answers, flush=True)


if __name__ == "__main__":
    main()
