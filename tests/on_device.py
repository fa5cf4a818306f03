"""Run the tests that need an NVIDIA GPU, and no others: python tests/on_device.py failures.txt [--seconds 120]

Tests of kernels compare only the GPU with the reference there, and in single precision unless `--double` (see
`check_kernel`); what tests of devices compare with, on the CPU, are references too. Compiling takes most of the time,
and double precision is tested on Warp's CPU device. Each failure is written at once, so that what is known survives the
end of the process. Packages may be newer there: what they deprecate is no failure.
"""

import argparse
import inspect
import os
import sys
import time
from pathlib import Path

os.environ["UNRENDER_TEST_DEVICE"] = "cuda"

import pytest

from unrender.kernels import _dispatch

PLACES = ("kernels", "devices")


class Watch:
    """A pytest plugin that selects tests, stops in time, and writes failures down."""

    def __init__(self, output: Path, end: float) -> None:
        self.output, self.end, self.counts = output, end, {"passed": 0, "failed": 0, "skipped": 0}
        output.write_text("")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep tests with a mark that asks for a GPU, and those of kernels."""
        items[:] = [item for item in items if self._is_for_gpu(item)]

    def _is_for_gpu(self, item: pytest.Item) -> bool:
        reasons = [mark.kwargs.get("reason", "") for mark in item.iter_markers("skipif")]
        if any("NVIDIA GPU" in reason for reason in reasons):
            return True
        function = getattr(item, "function", None)
        is_check = function is not None and "check_kernel(" in inspect.getsource(function)
        return is_check and "warp" not in item.name

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1
        with self.output.open("a") as file:
            if report.failed:
                print(f"== FAILED {report.nodeid}\n{report.longreprtext[-4000:]}", file=file)
            elif report.when == "call":
                print(f"{report.outcome} {report.nodeid} {report.duration:.1f} s", file=file)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if "devices" in item.path.parts:
            _dispatch._forked.set()  # references on the CPU, as in a forked process
        else:
            _dispatch._forked.clear()
        if time.monotonic() > self.end:
            item.session.shouldstop = "out of time"

    def pytest_sessionfinish(self) -> None:
        with self.output.open("a") as file:
            print(self.counts, file=file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--only", default="", help="pytest's -k")
    parser.add_argument("--double", action="store_true", help="check kernels in double precision too")
    options = parser.parse_args()
    os.environ["UNRENDER_TEST_DOUBLE"] = str(int(options.double))
    here = Path(__file__).parent
    arguments = ["-q", "-p", "no:cacheprovider", "-n", "0", "--tb=short", "-W", "ignore::DeprecationWarning"]
    if options.only:
        arguments += ["-k", options.only]
    places = [str(here / place) for place in PLACES]
    watch = Watch(options.output, time.monotonic() + options.seconds)
    return int(pytest.main([*arguments, *places], plugins=[watch]))


if __name__ == "__main__":
    sys.exit(main())
