"""``ragkit app``: a command of the ``ragkit`` program, which finds it by its entry point, so that ragkit itself
imports nothing of the apps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ragkit.commands import Corpus, Location, Model, explained, read_settings
from ragkit.extras import install

DEMO = Path(__file__).parent / "corpus" / "mul"
EXAMPLES = ("en", "ar", "zh", "hi", "sw", "ja", "am", "es")  # of each language the first question of the demo corpus


def app(
    corpus: Corpus = "selvara",
    host: Annotated[str, typer.Option(help="address to listen on; others than loopback need a login")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    questions: Annotated[
        Path | None, typer.Option(help="folder with queries.jsonl and qrels.tsv about the corpus [the demo's own]")
    ] = None,
    rival: Annotated[str, typer.Option(help="another embedder to compare with, for example 'mini-base'")] = "",
    store: Location = "",
    model: Model = "",
) -> None:
    """Show the corpus in the browser: search, compare, ask, languages, documents. Login: RAGKIT_APP_AUTH."""
    settings = read_settings()
    settings = settings.model_copy(update={"store": store or settings.store, "model": model or settings.model})
    with explained():
        try:
            from apps.site import create, run
        except ImportError as error:
            raise ImportError(f"the app's packages are missing ({error}): {install('app')}") from error
        folder = questions or (DEMO if corpus == "selvara" else None)
        site = create(settings, corpus, questions=folder, examples=first_questions(folder), rival=rival, host=host)
        print(f"{corpus} on http://{'localhost' if host in ('0.0.0.0', '::') else host}:{port}", file=sys.stderr)
        run(site, host, port)


def first_questions(folder: Path | None) -> list[str]:
    """Examples to click: the first question in each of a few languages, then in others."""
    if folder is None:
        return []
    from ragkit.evaluate import read_questions  # loads numpy, which --help does not wait for

    questions = read_questions(folder)
    first: dict[str, str] = {}
    for key in questions.qrels:
        first.setdefault(questions.languages[key], questions.texts[key])
    chosen = [first[lang] for lang in EXAMPLES if lang in first]
    return chosen or list(first.values())[: len(EXAMPLES)]
