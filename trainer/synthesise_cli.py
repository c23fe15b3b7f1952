"""``trainer synthesise run | plan | collect | report``: a language model writes the training data."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.extras import install

if TYPE_CHECKING:
    from trainer.derive import Derived, Filters
    from trainer.request_plan import Plan, SynthesisConfig
    from trainer.synthesise import Outcome

app = typer.Typer(no_args_is_help=True, help="A language model brainstorms tasks and writes training examples.")

MODEL = "gpt-4o-mini"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        help="endpoints with shares, seed, kinds, languages, budgets: a YAML file, or a shipped one: paper, local"
    ),
]
Seed = Annotated[int | None, typer.Option(help="decides what is asked")]
Setting = Annotated[str | None, typer.Option(help="'weighted' or 'paper' (every slot value evenly)")]
Cross = Annotated[
    float | None,
    typer.Option("--cross-lingual", help="share of short-long and questions with documents in another language"),
]
Model = Annotated[str | None, typer.Option(help="one endpoint, in place of the config's [RAGKIT_LLM_MODEL]")]
Url = Annotated[str | None, typer.Option("--base-url", help="and where it is served [RAGKIT_LLM_URL]")]
TasksFile = Annotated[Path | None, typer.Option("--tasks", help="stage examples: the collected tasks.jsonl")]
PassagesFile = Annotated[
    Path | None,
    typer.Option(
        "--passages", help="stage questions: JSONL with text, perhaps title and lang (a code), such as corpus.jsonl"
    ),
]
Ask = Annotated[
    list[str] | None,
    typer.Option("--language", help="write in these languages only, as Hindi; repeat it [shares as published]"),
]
Shard = Annotated[str, typer.Option(help="this machine's part of the requests: 2/8")]
Contamination = Annotated[
    list[Path] | None, typer.Option(help="evaluation sets in BEIR's layout that examples must not share text with")
]
Near = Annotated[
    float, typer.Option("--near-duplicates", help="similarity from which examples are alike; 0: exact only")
]


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="the run's folder; a run that was cut off goes on from it")],
    requests: Annotated[int, typer.Option(help="examples to ask for (stage tasks: brainstorms)", min=1)] = 1000,
    config: ConfigFile = None,
    stage: Annotated[
        str, typer.Option(help="'tasks', 'examples', 'both', one after the other, or 'questions' about --passages")
    ] = "both",
    tasks: TasksFile = None,
    passages: PassagesFile = None,
    language: Ask = None,
    seed: Seed = None,
    setting: Setting = None,
    cross_lingual: Cross = None,
    model: Model = None,
    base_url: Url = None,
    shard: Shard = "1/1",
    budget_tokens: Annotated[int | None, typer.Option(help="stop when so many are spent; 0: no bound")] = None,
    budget_money: Annotated[float | None, typer.Option(help="the same in money; takes prices in --config")] = None,
    contamination: Contamination = None,
    near_duplicates: Near = 0.0,
) -> None:
    """Ask, check, and write examples.jsonl and rejected.jsonl."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)])
    with _told():
        from trainer import synthesise as s
        from trainer.answers import ANSWERS as answers_file
        from trainer.answers import EXAMPLES, TASKS, Index
        from trainer.batch import plan_from
        from trainer.derive import derive
        from trainer.lock import locked
        from trainer.request_plan import Plan, brainstorms_for, parse_shard

        part = parse_shard(shard)
        if stage not in ("tasks", "examples", "both", "questions"):
            raise ValueError(f"--stage is {stage!r}: use tasks, examples, both or questions")
        if stage == "both" and (part != (1, 1) or tasks):
            raise ValueError("--shard and --tasks go with one stage: --stage tasks, collect, then --stage examples")
        source = _source(stage, tasks, passages)
        wanted = _config(
            config, model, base_url, seed=seed, setting=setting, cross_lingual=cross_lingual,
            languages=_evenly(language), budget_tokens=budget_tokens, budget_money=budget_money,
        )  # fmt: skip
        stopped = ""
        with locked(out):
            frozen = any(Index(out / answers_file).answered("examples"))
            if stage in ("tasks", "both") and not (frozen and stage == "both"):
                plan = Plan(wanted, "tasks")
                s.claim(out, plan)
                count = requests if stage == "tasks" else brainstorms_for(requests, wanted.kinds)
                outcome = s.ask(plan, out, count, shard=part)
                derive(out, keep_tasks=frozen)
                stopped = _said("tasks", outcome)
            if stage in ("examples", "both") and not stopped:
                plan = plan_from(wanted, "examples", source or out / TASKS)
                _name_missing(plan)
                s.claim(out, plan)
                stopped = _said("examples", s.ask(plan, out, requests, shard=part))
                frozen = True
            if stage == "questions":
                plan = plan_from(wanted, stage, source)
                s.claim(out, plan)
                stopped = _said(stage, s.ask(plan, out, requests, shard=part))
            derived = derive(out, _filters(contamination, near_duplicates), keep_tasks=frozen)
        _summary(derived, out / EXAMPLES)
    if stopped:
        raise typer.Exit({"budget": 0, "Ctrl-C": 130}.get(stopped, 1))


@app.command()
def plan(
    out: Annotated[Path, typer.Option(help="the request file to write: requests.jsonl")],
    requests: Annotated[int, typer.Option(help="how many", min=1)],
    stage: Annotated[str, typer.Option(help="'tasks' (brainstorms), 'examples' or 'questions'")],
    tasks: TasksFile = None,
    passages: PassagesFile = None,
    language: Ask = None,
    config: ConfigFile = None,
    seed: Seed = None,
    setting: Setting = None,
    cross_lingual: Cross = None,
    model: Model = None,
    shard: Shard = "1/1",
) -> None:
    """Write requests as OpenAI Batch API files, to be answered elsewhere."""
    with _told():
        from trainer.batch import plan_file, plan_from, write_requests
        from trainer.request_plan import parse_shard

        source = _source(stage, tasks, passages)
        if stage == "examples" and source is None:
            raise ValueError("stage examples takes --tasks FILE: the tasks.jsonl that stage tasks came to")
        wanted = _config(
            config, model, None, seed=seed, setting=setting, cross_lingual=cross_lingual, languages=_evenly(language)
        )
        made = plan_from(wanted, stage, source)
        _name_missing(made)
        for file, lines in write_requests(made, out, requests, shard=parse_shard(shard), source=source).items():
            typer.echo(f"{file}: {lines} requests (how they were made: {plan_file(file).name})")


@app.command()
def collect(
    responses: Annotated[list[Path], typer.Argument(help="Batch API response files, or answers.jsonl of other runs")],
    out: Annotated[Path, typer.Option(help="the folder to collect into; called again, it adds")],
    requests: Annotated[
        Path | None, typer.Option(help="the request file that was answered; by default requests.jsonl beside each")
    ] = None,
    tasks: TasksFile = None,
    passages: PassagesFile = None,
    contamination: Contamination = None,
    near_duplicates: Near = 0.0,
) -> None:
    """Read answers, check them, and write tasks.jsonl, examples.jsonl and rejected.jsonl."""
    with _told():
        from collections import Counter

        from trainer import synthesise as s
        from trainer.answers import ANSWERS, EXAMPLES, Index, Log, load
        from trainer.batch import collect_responses, merge_answers, plan_file, read_plan
        from trainer.derive import derive
        from trainer.lock import locked
        from trainer.request_plan import STAGES

        dropped: Counter[str] = Counter()
        with locked(out):
            log, index = Log(out / ANSWERS), Index(out / ANSWERS)
            answered = {stage: index.answered(stage) for stage in STAGES}
            for file in responses:
                if not file.exists():
                    raise ValueError(f"{file} is not there")
                if _is_log(file):
                    s.claim_like(out, file.parent)
                    collected = merge_answers(load(file), log, answered)
                else:
                    source = plan_file(requests or file.with_name("requests.jsonl"))
                    if not source.exists():
                        raise ValueError(
                            f"{source} is not there: name the request file that {file} answers with --requests"
                        )
                    made = read_plan(source, tasks or passages)
                    s.claim(out, made)
                    with file.open(encoding="utf-8") as lines:
                        collected = collect_responses(lines, made, log, answered[made.stage])
                typer.echo(f"{file}: {collected.answers} answers" + _listed(collected.dropped))
                dropped += collected.dropped
            log.close()
            derived = derive(
                out, _filters(contamination, near_duplicates), keep_tasks=_is_fed(out, any(answered["examples"]))
            )
        _summary(derived, out / EXAMPLES)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="a run's folder")],
    plot: Annotated[Path | None, typer.Option(help="also write a plot: .png, .svg, or .html with the tables")] = None,
) -> None:
    """Examples by kind and language, instructions, tokens, cost, and why answers were turned down."""
    with _told():
        from trainer.report import as_text, read_report, write_plot

        found = read_report(folder)
        typer.echo(as_text(found))
        if plot:
            write_plot(found, plot)
            typer.echo(f"plot: {plot}")


@contextmanager
def _told() -> Iterator[None]:
    """Faults of the user's as one line, not as a traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        missing = f": {install('synthesise')}" if isinstance(error, ImportError) else ""
        typer.echo(f"trainer synthesise: {error}{missing}", err=True)
        raise typer.Exit(1) from error


def _config(file: Path | None, model: str | None, base_url: str | None, **given: Any) -> SynthesisConfig:
    from trainer.config import RECIPES
    from trainer.request_plan import config_from

    if file is not None and not file.exists():
        shipped = RECIPES / "synthesise" / f"{file}.yaml"
        if not shipped.exists():
            raise ValueError(f"--config {file} is not there")
        file = shipped
    if file is None:  # the environment gives what nobody else does: it must not undo a config
        model, base_url = model or os.environ.get("RAGKIT_LLM_MODEL"), base_url or os.environ.get("RAGKIT_LLM_URL")
    if file is None or model or base_url:
        given["endpoints"] = [{"model": model or MODEL, **({"base_url": base_url} if base_url else {})}]
    return config_from(file, **given)


def _name_missing(plan: Plan) -> None:
    for kind in plan.without_tasks:
        typer.echo(f"no task of kind {kind} was collected: none of its examples is asked for", err=True)
    for kind in plan.without_pair:
        typer.echo(
            f"{kind} takes two languages, and one alone has a share: none of its examples is asked for", err=True
        )


def _source(stage: str, tasks: Path | None, passages: Path | None) -> Path | None:
    """The file that a stage is planned from. Raises ValueError for one of another stage, or that is not there."""
    if tasks and stage not in ("examples", "both"):
        raise ValueError("--tasks goes with --stage examples: stage tasks makes such a file")
    if (passages is not None) != (stage == "questions"):
        raise ValueError("--stage questions and --passages FILE go together: the passages to ask about")
    source = tasks or passages
    if source is not None and not source.exists():
        raise ValueError(f"{source} is not there")
    return source


def _evenly(languages: list[str] | None) -> dict[str, float] | None:
    return dict.fromkeys(languages, 1.0) if languages else None


def _filters(folders: list[Path] | None, near: float) -> Filters:
    from trainer.contamination import Evaluation
    from trainer.derive import Filters

    return Filters(Evaluation(folders) if folders else None, near)


def _is_log(file: Path) -> bool:
    """Whether its first line is an answer of ours, and not a response."""
    import json

    with file.open(encoding="utf-8", errors="replace") as lines:
        try:
            first = json.loads(next(lines, "{}"))
        except ValueError:
            return False
    return isinstance(first, dict) and {"stage", "number", "slots"} <= first.keys()


def _is_fed(out: Path, examples: bool) -> bool:
    """Whether tasks.jsonl is there and requests for examples were drawn from it."""
    from trainer.answers import TASKS

    return examples and (out / TASKS).exists() and (out / TASKS).stat().st_size > 0


def _said(stage: str, outcome: Outcome) -> str:
    """Says what a stage came to; returns why the run should stop here, or ""."""
    spent = f"{outcome.tokens} tokens" + (f", {outcome.money:.2f} spent" if outcome.money else "")
    skipped = f", {outcome.skipped} answered before" if outcome.skipped else ""
    typer.echo(f"{stage}: {outcome.answered} answers, {outcome.failed} failed{skipped}; {spent}")
    if outcome.stopped:
        typer.echo(f"stopped ({outcome.stopped}): the same command goes on from here", err=True)
    return outcome.stopped


def _summary(derived: Derived, examples: Path) -> None:
    typer.echo(f"{derived.tasks} tasks, {derived.examples} examples in {examples}" + _listed(derived.rejected))


def _listed(reasons: Any) -> str:
    if not reasons:
        return ""
    return "; turned down: " + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
