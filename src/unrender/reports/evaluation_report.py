"""The report of `unrender eval`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrender._wording import counted
from unrender.reports import evaluation
from unrender.reports.evaluation import EvaluatedView
from unrender.reports.html import Section, write_report
from unrender.reports.reproduce import reproduce

SLASHES_IN_MEANS = 2
"""In names of depth metrics; those of single views have more."""


def write_evaluation_report(
    path: Path,
    title: str,
    summary: str,
    evaluated: Sequence[EvaluatedView],
    protocol: Mapping[str, Any],
    metrics: Mapping[str, Any],
    command: str,
) -> None:
    """Write the report: compared images, mean metrics, the protocol, and the metrics of each view."""
    total = counted(protocol["views_in_split"], "view")
    count = f"{len(protocol['views'])} of the {total} of the {protocol['split']} split."
    text = f"{count} {evaluation.protocol_text(protocol)} LPIPS: {protocol['lpips']}."
    means = {name: value for name, value in metrics.items() if name.count("/") <= SLASHES_IN_MEANS}
    sections = [
        Section(
            "Results",
            summary,
            [figure for view in evaluated for figure in view.figures],
            columns=evaluation.FIGURES_PER_VIEW,
        ),
        Section("Metrics", table=means),
        Section("Protocol", text),
        _by_view(evaluated),
        reproduce(command),
    ]
    write_report(path, title, sections)


def _by_view(evaluated: Sequence[EvaluatedView]) -> Section:
    names = list(dict.fromkeys(name for view in evaluated for name in view.metrics))
    table = {view.name: [view.metrics.get(name) for name in names] for view in evaluated}
    return Section("Metrics by view", table=table, header=["view", *names] if table else [])
