"""What a run made: the paper's Figure 2 for one's own data, as a table and as a plot.

Examples by kind and language, unique instructions, tokens, money, and why the rest was turned down, for
each generator. Counted from the folder's files in one pass over each.
"""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.answers import ANSWERS, EXAMPLES, FAILED, REJECTED, TASKS, generator_of, load
from trainer.dedup import Seen
from trainer.languages import language
from trainer.slots import KINDS, QUESTION


@dataclass
class Tally:
    """Of one generator, or of all."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: int = 0  # answers whose tokens the server did not count
    money: float = 0.0
    tasks: int = 0
    examples: int = 0
    rejected: Counter[str] = field(default_factory=Counter)


@dataclass
class Report:
    kinds: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)  # of the query, by name
    cross_lingual: int = 0
    instructions: int = 0  # unique
    failed: int = 0
    rejected: dict[str, Counter[str]] = field(default_factory=dict)  # reason -> kind -> count
    rejected_languages: Counter[str] = field(default_factory=Counter)  # of examples
    generators: dict[str, Tally] = field(default_factory=dict)

    @property
    def total(self) -> Tally:
        total = Tally()
        for tally in self.generators.values():
            total.answers += tally.answers
            total.prompt_tokens += tally.prompt_tokens
            total.completion_tokens += tally.completion_tokens
            total.estimated += tally.estimated
            total.money += tally.money
            total.tasks += tally.tasks
            total.examples += tally.examples
            total.rejected += tally.rejected
        return total


def read_report(folder: Path) -> Report:
    """Raises ValueError where the folder holds no answers."""
    if not (folder / ANSWERS).exists():
        raise ValueError(f"{folder} holds no {ANSWERS}: give the --out of a run")
    report = Report()
    seen, answered = Seen(), Seen()

    def tally(generator: str) -> Tally:
        return report.generators.setdefault(generator, Tally())

    for example in load(folder / EXAMPLES):
        report.kinds[example["kind"]] += 1
        report.languages[language(example["query_language"]).name] += 1
        report.cross_lingual += example["kind"] != "bitext" and example["document_language"] not in (
            "",
            example["query_language"],
        )
        report.instructions += not seen.add(example["instruction"])
        tally(example["generator"]).examples += 1
    for task in load(folder / TASKS):
        tally(task["generator"]).tasks += 1
    for rejection in load(folder / REJECTED):
        report.rejected.setdefault(rejection["reason"], Counter())[_place(rejection)] += 1
        slots = rejection["slots"]
        if rejection["stage"] != "tasks":
            name = next(slots[key] for key in ("language", "src_lang", "query_language") if key in slots)
            report.rejected_languages[name] += 1
        tally(rejection["generator"]).rejected[rejection["reason"]] += 1
    for answer in load(folder / ANSWERS):
        one = tally(generator_of(answer))
        one.answers += 1
        one.prompt_tokens += answer["prompt_tokens"]
        one.completion_tokens += answer["completion_tokens"]
        one.estimated += answer["estimated"]
        one.money += answer["cost"]
        answered.add(answer["id"])
    report.failed = sum(not answered.add(failure["id"]) for failure in load(folder / FAILED))
    return report


def _place(rejection: Mapping[str, Any]) -> str:
    return "a task" if rejection["stage"] == "tasks" else rejection["kind"]


def tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, head, rows) of each table."""
    total = report.total
    examples = sum(report.kinds.values())
    places = ["a task", *KINDS, QUESTION]
    found = [
        ("Examples by kind", ["kind", "examples", "%"], _shares(report.kinds, examples)),
        ("Examples by language of the query", ["language", "examples", "%", "turned down"], [
            [*row, str(report.rejected_languages[row[0]])] for row in _shares(report.languages, examples)
        ] + [
            [name, "0", "0.0", str(count)]
            for name, count in report.rejected_languages.most_common() if name not in report.languages
        ]),
        ("Turned down", ["reason", *places, "all"], [
            [reason, *(str(by[place] or "") for place in places), str(sum(by.values()))]
            for reason, by in sorted(report.rejected.items(), key=lambda item: -sum(item[1].values()))
        ]),
        ("By generator", [
            "generator", "answers", "prompt tokens", "answer tokens", "cost", "tasks", "examples", "turned down"
        ], [
            [name, str(t.answers), str(t.prompt_tokens), str(t.completion_tokens), f"{t.money:.2f}", str(t.tasks),
             str(t.examples), str(sum(t.rejected.values()))]
            for name, t in [*sorted(report.generators.items()), ("all", total)]
        ]),
    ]  # fmt: skip
    tokens = total.prompt_tokens + total.completion_tokens
    facts = [
        ["examples", str(examples)],
        ["unique instructions", str(report.instructions)],
        ["queries and documents in different languages", str(report.cross_lingual)],
        ["tokens", f"{tokens}" + (f" ({total.estimated} answers estimated)" if total.estimated else "")],
        ["tokens an example", f"{tokens / examples:.0f}" if examples else "-"],
        ["cost", f"{total.money:.2f}"],
        ["requests that failed", str(report.failed)],
    ]
    return [("Totals", ["", ""], facts), *found]


def _shares(counts: Counter[str], total: int) -> list[list[str]]:
    return [[name, str(count), f"{100 * count / total:.1f}"] for name, count in counts.most_common()]


def as_text(report: Report) -> str:
    """Markdown tables, readable as they are."""
    lines: list[str] = []
    for title, head, rows in tables(report):
        widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
        lines += [title, "", _row(head, widths), "|" + "|".join("-" * (w + 2) for w in widths) + "|"]
        lines += [*(_row(row, widths) for row in rows), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]) + " |"


def write_plot(report: Report, out: Path) -> None:
    """``out``.png, .svg or .pdf: the plot; .html: the plot and the tables in one page. Needs matplotlib."""
    if out.suffix != ".html":
        _figure(report).savefig(out, dpi=150)
        return
    image = io.BytesIO()
    _figure(report).savefig(image, format="png", dpi=120)
    source = base64.b64encode(image.getvalue()).decode()
    body = [f'<img alt="examples by kind, language and reason" src="data:image/png;base64,{source}">']
    for title, head, rows in tables(report):
        lines = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
        body.append(f"<h2>{html.escape(title)}</h2><table>{''.join(lines)}</table>")
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Synthetic data</title><style>{_STYLE}</style>'
    out.write_text(page + "\n".join(body) + "</html>\n", "utf-8")


_STYLE = (
    "body{font-family:sans-serif;margin:2em} img{max-width:100%} "
    "td,th{padding:.1em .8em;text-align:right} td:first-child{text-align:left}"
)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _figure(report: Report) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no global state, no display

    names = [name for name, _ in report.languages.most_common(20)]
    others = sum(report.languages.values()) - sum(report.languages[name] for name in names)
    languages = {**{name: report.languages[name] for name in names}, **({"others": others} if others else {})}
    reasons = {reason: sum(by.values()) for reason, by in report.rejected.items()}
    figure = Figure(figsize=(14, 6), layout="constrained")
    panels: list[tuple[str, Mapping[str, int], str]] = [
        ("Examples by kind", dict(report.kinds.most_common()), "#3b6ea5"),
        ("Examples by language of the query", languages, "#5a9367"),
        ("Turned down, by reason", dict(sorted(reasons.items(), key=lambda item: -item[1])), "#b5584a"),
    ]
    for axes, (title, counts, colour) in zip(figure.subplots(1, 3), panels, strict=True):
        bars = axes.barh(list(counts), list(counts.values()), color=colour)
        axes.bar_label(bars, padding=2, fontsize=8)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
