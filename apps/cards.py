"""Hits, answers, readings and reports as HTML in the visitor's language. Pure: values in, markup out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from apps.explain import Found, Moved, Reading
from apps.library import Entry, NotReady, Status
from apps.markup import Child, Html, said, tag
from apps.uploads import Refused
from apps.words import Words
from ragkit.types import Answer, Citation, Hit, Passage

Span = tuple[int, int]


def results(found: Found, words: Words, marked: Mapping[str, Sequence[Span]]) -> Html:
    """The hits of a search, ranked, with what it cost."""
    if not found.hits:
        return notice(words("search.nothing"), words("search.nothing.help"))
    cards = [
        card(hit, words, ranks=found.ranks.get(hit.passage.id), marks=marked.get(hit.passage.id, ()))
        for hit in found.hits
    ]
    title = words("search.results")
    heading = tag("h2", title, cls="rk-unseen")
    return tag("section", heading, costs(found, words), tag("ol", cards, cls="rk-hits"), aria_label=title)


def costs(found: Found, words: Words) -> Html:
    """Milliseconds of each stage, and the question's language."""
    stages = [
        tag("li", words(f"stage.{name}"), " ", tag("b", words("stage.ms", value=words.number(ms, 1 if ms < 10 else 0))))
        for name, ms in found.milliseconds.items()
    ]
    spoken = tag("li", words("search.language"), " ", tag("b", words.name_of(found.language)))
    return tag("ul", spoken, stages, cls="rk-costs")


def card(
    hit: Hit,
    words: Words,
    *,
    ranks: tuple[int | None, int | None] | None = None,
    marks: Sequence[Span] = (),
    moved: Html | None = None,
    number: int | None = None,
) -> Html:
    """``number``: it is source [number] of an answer, which leads here; else its rank is shown."""
    passage = hit.passage
    why: list[Child] = [tag("span", words("hit.score", value=words.number(hit.score, 3)))]
    if ranks is not None:
        why += [_half("hit.dense", ranks[0], words), _half("hit.sparse", ranks[1], words)]
    label = words("ask.source", value=number) if number else words("hit.rank", value=hit.rank)
    head = tag(
        "header",
        tag("span", words.number(number or hit.rank), cls="rk-rank", role="img", aria_label=label),
        said(passage.title or passage.document, passage.lang if passage.title else "", name="h3"),
        tag("span", words.name_of(passage.lang), cls="rk-lang"),
        moved,
    )
    body = said_with_marks(passage, marks)
    foot = tag(
        "footer",
        tag("p", why, cls="rk-why"),
        tag("p", said(place(passage, words)), cls="rk-place"),
        tag("button", words("hit.open"), type="button", data_rk_open=passage.id, cls="rk-quiet"),
    )
    anchor = f"rk-source-{number}" if number else None
    return tag("li", tag("article", head, body, foot, cls="rk-card"), id=anchor)


def _half(name: str, rank: int | None, words: Words) -> Html:
    shown = "–" if rank is None else words.number(rank)
    return tag("span", words(name), " ", tag("b", shown), cls="rk-half", data_rk_none=rank is None)


def said_with_marks(passage: Passage, marks: Sequence[Span] = ()) -> Html:
    """The passage's text, spans of it marked; a first line that is its title left to the heading."""
    text = passage.text
    done = len(passage.title) if passage.title and f"{text}\n".startswith(f"{passage.title}\n") else 0
    inner: list[Child] = []
    for start, end in sorted(set(marks)):
        if start < done:
            continue
        before = text[done:start]
        inner += [before if inner else before.lstrip(), tag("mark", text[start:end])]
        done = end
    rest = text[done:].rstrip()
    inner.append(rest if inner else rest.lstrip())
    return tag("p", inner, lang=passage.lang if passage.lang != "und" else "", dir="auto", cls="rk-text")


def place(passage: Passage, words: Words) -> str:
    """Where it stands: the document, its page and the headings above."""
    page = f" · {words('hit.page', value=passage.page)}" if passage.page else ""
    return f"{passage.document}{page}{' · ' + passage.heading if passage.heading else ''}"


def reading(read: Reading, words: Words) -> Html:
    """What the model reads: the prompt, token by token."""
    if not read.tokens:
        return tag("div", tag("pre", read.prompt, dir="auto"), tag("p", words("reading.remote")), cls="rk-reading")
    shown = [
        tag("span", token.text.replace("\n", "⏎"), cls="rk-token rk-special" if token.special else "rk-token",
            title=words("reading.id", value=str(token.id)))
        for token in read.tokens
    ]  # fmt: skip
    count = tag("p", words("reading.tokens", value=len(read.tokens)), cls="rk-muted")
    cut = tag("p", words("reading.cut"), cls="rk-warning") if read.cut else None
    return tag("div", tag("p", shown, dir="ltr", cls="rk-tokens"), count, cut, cls="rk-reading")


def side(title: str, moved: Sequence[Moved], words: Words, *, arrows: bool) -> Html:
    """One column of a comparison."""
    cards = [card(m.hit, words, moved=arrow(m.by, words) if arrows else None) for m in moved]
    inner = tag("ol", cards, cls="rk-hits") if cards else notice(words("search.nothing"), words("search.nothing.help"))
    return tag("section", tag("h2", title), inner, aria_label=title, cls="rk-side")


def arrow(by: int | None, words: Words) -> Html:
    """How a hit moved, by a sign and in words."""
    if by is None:
        return tag("span", "✦ ", words("moved.new"), cls="rk-moved rk-new")
    if by == 0:
        return tag("span", "= ", words("moved.same"), cls="rk-moved")
    sign, name, cls = ("▲", "moved.up", "rk-up") if by > 0 else ("▼", "moved.down", "rk-down")
    said_so = words(name, value=abs(by))
    return tag(
        "span", f"{sign} {words.number(abs(by))}", cls=f"rk-moved {cls}", role="img", aria_label=said_so, title=said_so
    )


def answer(text: str, words: Words, *, whole: Answer | None = None, busy: bool = False) -> Html:
    """An answer, as it comes or ``whole``; markers [n] lead to the sources beside it."""
    if whole is not None and whole.text is None:
        return tag("div", notice(words("ask.silent"), words("ask.silent.help")), cls="rk-answer", role="status")
    label = words("ask.reading") if busy and not text else None
    notes: list[Child] = []
    if whole is not None:
        notes.append(
            tag("p", words("ask.by", value=whole.model) if whole.model else words("ask.extractive"), cls="rk-muted")
        )
        if not whole.citations:
            notes.append(tag("p", words("ask.unbacked"), cls="rk-warning"))
        if whole.cut:
            notes.append(tag("p", words("ask.cut"), cls="rk-warning"))
    body = tag("p", _with_links(text, whole.citations if whole else (), words), dir="auto", cls="rk-said")
    return tag(
        "div",
        body,
        tag("p", label, cls="rk-muted") if label else None,
        notes,
        cls="rk-answer",
        aria_busy="true" if busy else "false",
    )


def _with_links(text: str, citations: Iterable[Citation], words: Words) -> list[Child]:
    numbers = {c.number for c in citations}
    parts: list[Child] = []
    for n, part in enumerate(re.split(r"\[(\d+)\]", text)):
        if n % 2 == 0:
            parts.append(part)
        elif int(part) in numbers:
            label = words("ask.source", value=int(part))
            parts.append(
                tag(
                    "a", part, href=f"#rk-source-{int(part)}", data_rk_source=int(part), cls="rk-cite", aria_label=label
                )
            )
        else:
            parts.append(f"[{part}]")
    return parts


def sources(hits: Sequence[Hit], citations: Sequence[Citation], words: Words) -> Html:
    """What was read for an answer; cited ones show the sentence that backs it. Number n of a model's answer is the n-th
    hit; an extractive answer numbers what it cites from 1, so those come first."""
    if not hits:
        return Html("")
    cited: dict[int, list[Citation]] = {}
    for citation in citations:
        cited.setdefault(citation.number, []).append(citation)
    ordered = list(hits)
    if any(c.number > len(hits) or hits[c.number - 1] != c.hit for c in citations):
        first = [cited[number][0].hit for number in sorted(cited)]
        ordered = first + [hit for hit in hits if hit not in first]
    cards = []
    for number, hit in enumerate(ordered, start=1):
        marks = [(c.start, c.end) for c in cited.get(number, ())]
        cards.append(card(hit, words, marks=marks, number=number))
    title = words("ask.sources")
    return tag("section", tag("h2", title), tag("ol", cards, cls="rk-hits"), aria_label=title)


def opened(passage: Passage, around: Sequence[Passage], words: Words) -> Html:
    """A passage in its document, for the reader's dialog."""
    parts = [
        tag("p", p.text, lang=p.lang if p.lang != "und" else "", dir="auto",
            cls="rk-here" if p.id == passage.id else None, id="rk-here" if p.id == passage.id else None)
        for p in around
    ]  # fmt: skip
    facts = tag("p", said(place(passage, words)), f" · {words.name_of(passage.lang)}", cls="rk-muted")
    title = said(passage.title or passage.document, passage.lang if passage.title else "", name="h2")
    return tag("article", title, facts, parts, data_rk_reader=passage.id)


def documents(entries: Sequence[Entry], words: Words, *, more: bool, removable: bool) -> Html:
    if not entries:
        return tag("p", words("documents.none"), cls="rk-muted")
    head = [tag("th", words(f"documents.{name}"), scope="col") for name in ("title", "language", "passages")]
    if removable:
        head.append(tag("th", words("documents.remove"), scope="col"))
    rows = []
    for entry in entries:
        title = tag(
            "th",
            said(entry.title or entry.document, entry.lang if entry.title else ""),
            tag("small", said(entry.document)),
            scope="row",
        )
        cells: list[Child] = [title, tag("td", words.name_of(entry.lang)), tag("td", words.number(entry.passages))]
        if removable:
            cells.append(tag("td", _remove(entry, words)))
        rows.append(tag("tr", cells))
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", rows), cls="rk-table")
    note = tag("p", words("documents.more"), cls="rk-muted") if more else None
    return tag("div", table, note, cls="rk-scroll", tabindex=0, role="region", aria_label=words("documents.list"))


def _remove(entry: Entry, words: Words) -> Html:
    name = entry.title or entry.document
    return tag(
        "button",
        words("documents.remove"),
        type="button",
        cls="rk-quiet",
        aria_label=words("documents.remove.one", value=name),
        data_rk_remove=entry.first,
        data_rk_ask=words("documents.sure", value=name),
    )


def holdings(status: Status, words: Words) -> Html:
    """What the corpus is and holds."""
    facts: list[tuple[str, Child]] = [
        ("documents.corpus", said(status.corpus)),
        ("documents.passages", words.number(status.passages)),
        ("documents.languages", words.number(len(status.languages))),
        ("documents.model", said(f"{status.model} · {status.fingerprint}")),
        ("documents.place", said(status.location)),
    ]
    if status.bytes is not None:
        facts.append(("documents.size", words("documents.megabytes", value=words.number(status.bytes / 1e6, 1))))
    return tag("dl", [tag("div", tag("dt", words(name)), tag("dd", value)) for name, value in facts], cls="rk-facts")


def report(
    counts: Mapping[str, int], skipped: Sequence[tuple[str, str]], refused: Sequence[Refused], words: Words
) -> Html:
    """What a change did: counts, and each file that was not taken with its reason."""
    told = [tag("li", tag("b", words.number(count)), " ", words(f"report.{name}")) for name, count in counts.items()]
    left = [tag("li", said(r.name), ": ", words(r.reason, value=str(r.value))) for r in refused]
    left += [tag("li", said(name), ": ", said(reason, "en")) for name, reason in skipped]
    missing = [tag("h3", words("report.skipped.why")), tag("ul", left)] if left else None
    return tag("div", tag("ul", told, cls="rk-counts"), missing, cls="rk-report", role="status")


def progress(text: str, done: int, words: Words) -> Html:
    bar = tag("progress", aria_label=text)
    return tag("div", tag("p", text, " ", tag("b", words.number(done))), bar, cls="rk-progress", role="status")


def notice(title: str, help: str, detail: str = "") -> Html:
    """Something to know, and what to do."""
    told = tag("details", tag("summary", "…"), tag("pre", detail, dir="auto", lang="en")) if detail else None
    return tag("div", tag("strong", title), tag("p", help), told, cls="rk-notice", role="status")


def trouble(error: NotReady, words: Words) -> Html:
    return notice(words(f"trouble.{error.trouble}"), words(f"trouble.{error.trouble}.help"), str(error))
