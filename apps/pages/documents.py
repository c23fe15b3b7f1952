"""Documents: what the corpus holds; files come in, documents go, another model takes over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps import cards
from apps.desk import Desk, telling
from apps.markup import Html
from apps.quiet import gr
from apps.uploads import Refused, brought_in
from apps.words import Words
from ragkit.readers import READERS

ROWS = 50
FILES = 20  # of one upload

REMOVES = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-rk-remove]');
  if (button && window.confirm(button.dataset.rkAsk)) trigger('remove', {passage: button.dataset.rkRemove});
  const opens = event.target.closest('[data-rk-open]');
  if (opens) trigger('open', {passage: opens.dataset.rkOpen});
});
"""


def build(desk: Desk) -> None:
    t, library, app = desk.t, desk.library, desk.settings.app
    holdings = gr.HTML(apply_default_css=False, elem_classes="rk-page", elem_id="rk-documents-holdings")
    told = gr.HTML(apply_default_css=False, elem_classes="rk-page", elem_id="rk-documents-report")
    with gr.Row(visible=not app.read_only):
        files = gr.File(
            label=t("documents.upload"), file_count="multiple", file_types=sorted(READERS), type="filepath", height=160,
            elem_id="rk-documents-files",
        )  # fmt: skip
        with gr.Column(scale=0, min_width=180):
            add = gr.Button(t("documents.add"), variant="primary", elem_id="rk-documents-add")
            stop = gr.Button(t("stop"), elem_id="rk-documents-stop")
    with gr.Accordion(t("documents.reindex"), open=False, visible=not app.read_only, elem_id="rk-documents-reindex"):
        shared = desk.settings.tenant is not None
        gr.Markdown(t("trouble.tenants.help"), visible=shared, elem_classes="rk-told rk-auto")
        info = t("documents.reindex.help" if library.alone else "trouble.unnamed.help")
        model = gr.Dropdown(
            library.named, value=library.model, allow_custom_value=library.alone, label=t("documents.model"), info=info,
            visible=not shared,
        )  # fmt: skip
        again = gr.Button(t("documents.reindex.go"), visible=not shared, elem_id="rk-documents-reindex-go")
    part = gr.Textbox(label=t("documents.filter"), elem_id="rk-documents-filter", elem_classes="rk-auto")
    listed = gr.HTML(js_on_load=REMOVES, apply_default_css=False, elem_classes="rk-page", elem_id="rk-documents-list")

    def show(part: str, language: str) -> tuple[Html, Html]:
        words, wrong = Words(language), list[Html]()
        with telling(words, wrong):
            status = library.status()
            entries = library.documents(part.strip(), ROWS + 1)
            table = cards.documents(entries[:ROWS], words, more=len(entries) > ROWS, removable=not app.read_only)
            return cards.holdings(status, words), table
        return wrong[0], Html("")

    def upload(paths: list[str] | None, language: str) -> Iterator[tuple[Html, Any]]:
        words, wrong = Words(language), list[Html]()
        with telling(words, wrong):
            if not paths:
                raise ValueError(words("upload.none"))
            given = [(Path(path), Path(path).name) for path in paths[:FILES]]
            too_many = [Refused(Path(path).name, "upload.too_many", FILES) for path in paths[FILES:]]
            counts, skipped = dict[str, int](), list[tuple[str, str]]()
            with brought_in(given, library.uploads, app.upload_bytes, app.uploads_bytes) as arrival:
                refused = [*arrival.refused, *too_many]
                for step in library.upload(arrival) if arrival.taken else ():
                    if step.report is None:
                        yield cards.progress(words("documents.reading"), step.embedded, words), gr.skip()
                        continue
                    skipped = [(Path(one["path"]).name, one["reason"]) for one in step.report["skipped"]]
                    names = ("added", "changed", "unchanged", "removed", "passages")
                    counts = {name: int(step.report[name]) for name in names}
            yield cards.report(counts, skipped, refused, words), None
        if wrong:
            yield wrong[0], gr.skip()

    def remove(part: str, language: str, event: gr.EventData) -> tuple[Html, Html, Html]:
        words, wrong = Words(language), list[Html]()
        done = Html("")
        with telling(words, wrong):
            try:
                passage, _ = library.around(str(event.passage), 0)
                library.remove([(passage.path, passage.document)])
                done = cards.notice(words("documents.removed"), passage.title or passage.document)
            except KeyError:
                done = cards.notice(words("hit.gone"), words("hit.gone.help"))
        return (wrong[0] if wrong else done), *show(part, language)

    def reindex(model: str | None, language: str) -> Iterator[Html]:
        words, wrong = Words(language), list[Html]()
        with telling(words, wrong):
            for step in library.reindex((model or "").strip()):
                if step.report is None:
                    yield cards.progress(words("documents.embedding", value=str(model)), step.done, words)
                else:
                    counts = {"passages": int(step.report["embedded"])}
                    yield cards.report(counts, [], [], words)
        if wrong:
            yield wrong[0]

    private: dict[str, Any] = {"api_visibility": "private"}
    one_at_a_time: dict[str, Any] = private | {
        "concurrency_limit": 1,
        "concurrency_id": "change",
        "show_progress": "hidden",
    }
    added = add.click(upload, [files, desk.language], [told, files], **one_at_a_time)
    made = again.click(reindex, [model, desk.language], told, **one_at_a_time)
    stop.click(None, cancels=[added, made], **private)
    for change in (added, made):
        change.then(show, [part, desk.language], [holdings, listed], **private)
    listed.remove(remove, [part, desk.language], [told, holdings, listed], **one_at_a_time)
    part.change(
        show, [part, desk.language], [holdings, listed], show_progress="hidden", trigger_mode="always_last", **private
    )
    desk.refreshed.append((lambda language: show("", language)[0], holdings))
    desk.refreshed.append((lambda language: show("", language)[1], listed))
