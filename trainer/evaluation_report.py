"""From result files to the report: read, tabulate, draw, write. The edge where files are touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.passkey import Run, is_run, read
from trainer.passkey_report import passkey_chart, passkey_table
from trainer.published import published
from trainer.score_tables import score_tables
from trainer.scores import ModelScores, annotate, read_scores
from trainer.tables import Table


@dataclass(frozen=True, slots=True)
class Report:
    models: tuple[ModelScores, ...]
    passkeys: tuple[Run, ...]  # runs of the passkey test
    tables: tuple[Table, ...]
    summary: tuple[str, ...]


def build(
    results: Sequence[Path], against: Sequence[str], reproduces: Mapping[str, str], notes: Mapping[str, str]
) -> Report:
    """Raises ValueError or OSError where the files hold no results, or a name that was given is not theirs."""
    runs = [read(file) for file in results if is_run(file)]
    folders = [file for file in results if not is_run(file)]
    models = read_scores(folders) if folders else []
    annotate(models, published().notes, notes)
    tables = score_tables(models, against, reproduces)
    if runs:
        tables.append(passkey_table(runs))
    if not tables:
        raise ValueError("these results hold no score: every task is missing")
    summary = (
        [f"Measured: {', '.join(m.label + (f' ({m.note})' if m.note else '') for m in models)}."] if models else []
    )
    return Report(tuple(models), tuple(runs), tuple(tables), tuple(summary))


def write_page(report: Report, out: Path, title: str) -> None:
    """``out``, and its pictures as PNG files in a folder beside it."""
    from trainer.charts import charts
    from trainer.page import page

    drawn = list(charts(report.models, report.tables))
    if report.passkeys:
        drawn.append(passkey_chart(report.passkeys))
    folder = out.with_name(f"{out.stem}-charts")
    folder.mkdir(parents=True, exist_ok=True)
    for chart in drawn:
        (folder / f"{chart.name}.png").write_bytes(chart.light)
    out.write_text(page(report.tables, drawn, title, report.summary), "utf-8")
