"""Runs of the passkey test as a table and a plot, with the paper's figure behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import binomtest

from ragkit.pictures import COLOURS, Look
from trainer.charts import Chart, chart
from trainer.passkey import Run
from trainer.published import published
from trainer.tables import Head, Table

KNOBS = ("rope_base", "rope_local_base", "window")


def label(run: Run) -> str:
    """The model, and the knobs that were turned."""
    settings = run["settings"]
    turned = [f"{knob.replace('_', ' ')} {settings[knob]:g}" for knob in KNOBS if settings.get(knob) is not None]
    return ", ".join([run["model"], *turned, *(["names of ten scripts"] if settings["names"] == "world" else [])])


def accuracy(done: dict[str, int]) -> float:
    return 100 * done["correct"] / done["queries"]


def passkey_table(runs: Sequence[Run]) -> Table:
    beside = published().tables["passkey"]
    lengths = sorted({*map(int, beside.scores), *(int(n) for run in runs for n in run["lengths"])})
    columns = (*(Head(label(run)) for run in runs), *(Head(s, "published") for s in beside.systems))
    cells = [
        [
            *(accuracy(run["lengths"][str(n)]) if str(n) in run["lengths"] else None for run in runs),
            *(beside.score(s, str(n)) for s in beside.systems),
        ]
        for n in lengths
    ]
    candidates = " or ".join(map(str, sorted({run["settings"]["candidates"] for run in runs})))
    remarks = (
        f"{candidates} candidates of each length. Filler, sentences and names are our own words, not the paper's",
        beside.origin + " The columns are settings of E5-mistral.",
    )
    return Table(
        "passkey", beside.title, f"{beside.metric}, in points", "columns",
        tuple(Head(f"{n:,} tokens") for n in lengths), columns, tuple(map(tuple, cells)), remarks,
    )  # fmt: skip


def passkey_chart(runs: Sequence[Run]) -> Chart:
    done = "; ".join(
        f"{label(r)}: " + ", ".join(f"{n} {accuracy(d):.0f}" for n, d in r["lengths"].items()) for r in runs
    )
    alt = f"Top-1 accuracy by length of text in tokens. {done}. The numbers are in the table."
    return chart("passkey", "passkey", alt, lambda look: plot(runs, look))


def plot(runs: Sequence[Run], look: Look) -> Figure:
    """Accuracy by length with 95 % intervals (Wilson); the paper's settings thin behind."""
    beside = published().tables["passkey"]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    for system, style in zip(beside.systems, ("-", "--", "-.", ":"), strict=True):
        values: Any = [beside.score(system, n) for n in beside.scores]
        axes.plot(
            [int(n) for n in beside.scores], values, linestyle=style, linewidth=1, color=look.ink, alpha=0.5,
            label=f"E5-mistral, {system} (published, read off)",
        )  # fmt: skip
    for n, run in enumerate(runs):
        lengths = [int(length) for length in run["lengths"]]
        values = [accuracy(d) for d in run["lengths"].values()]
        intervals = [
            binomtest(d["correct"], d["queries"]).proportion_ci(method="wilson") for d in run["lengths"].values()
        ]
        errors = [
            [max(0.0, v - 100 * i.low) for v, i in zip(values, intervals, strict=True)],
            [max(0.0, 100 * i.high - v) for v, i in zip(values, intervals, strict=True)],
        ]
        axes.errorbar(
            lengths, values, yerr=errors, marker="o", linewidth=2, capsize=3, color=COLOURS[n % len(COLOURS)],
            label=f" {label(run)}",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = sorted({*map(int, beside.scores), *(int(n) for run in runs for n in run["lengths"])})
    axes.set_xticks(ticks, [f"{n // 1024}k" if n >= 1024 and n % 1024 == 0 else str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_ylim(-3, 103)
    axes.set_xlabel("tokens of a text")
    axes.set_ylabel("right text first, %")
    axes.grid(linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return figure
