"""The app in a real browser (Debian's Chromium), over `mini` and a part of the demo corpus, as its visitors meet it.

A missing browser fails these tests: they are what holds the pages to what the README shows.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from app_corpus import part_of_the_demo, ragkit
from chat_server import ChatServer
from conftest import HashEncoder
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr
from serving import serving

from apps.running import running
from apps.words import LANGUAGES, RIGHT_TO_LEFT, messages
from ragkit.retrieve import Retriever
from ragkit.settings import AppSettings, Settings
from ragkit.store import open_store
from ragkit.types import Answer, Passage

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
FERRY = "冬のあいだ、日曜日の朝いちばんの船でグレート・メンク島へ渡りたいのですが、何時に出ますか。"
PROVE = os.environ.get("RAGKIT_PROVE")
SLOW = 60_000  # milliseconds: the model shares two cores with other tests
PAGES = ("search", "compare", "ask", "languages", "documents")

expect.set_options(timeout=SLOW)


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return part_of_the_demo(tmp_path_factory.mktemp("corpus"), {"en": 17, "am": 4})


@pytest.fixture(scope="module")
def variables(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the corpus is stored."""
    variables = {"RAGKIT_STORE": str(tmp_path_factory.mktemp("place") / "store")}
    done = ragkit("ingest", str(corpus / "corpus.jsonl"), "--corpus", "town", **variables)
    assert done.returncode == 0, done.stderr
    return variables


@pytest.fixture(scope="module")
def url(corpus: Path, variables: dict[str, str], chat: ChatServer) -> Iterator[str]:
    talks = {"RAGKIT_LLM_URL": chat.url, "RAGKIT_LLM_MODEL": "m", "RAGKIT_LLM_API_KEY": "unused"}
    with running("--corpus", "town", "--questions", str(corpus), **variables, **talks) as app:
        yield app.url


def test_an_app_that_does_not_start_says_why():
    why = r"app --port \d+ --corpora x ended with exit code 2:\n(.|\n)*--corpora"
    with pytest.raises(RuntimeError, match=why), running("--corpora", "x"):
        raise AssertionError("it has no such option")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), "these tests need Debian's chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


class Visit:
    """A visitor's page, which must ask nothing of other machines and log no error."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 900}, **context)
        self.context.set_default_timeout(SLOW)
        self.wrong: list[str] = []
        self.url = url

    def open(self, query: str = "") -> Page:
        page = self.context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self._note)
        page.goto(f"{self.url}/{query}")
        page.wait_for_selector("#rk-language option:checked", state="attached")
        expect(page.locator("#rk-search-question textarea")).to_be_visible()
        return page

    def _heard(self, message: Any) -> None:
        if message.type == "error" and "AbortError" not in message.text:  # what was loading when the visitor went on
            self.wrong.append(message.text)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"asked elsewhere: {request.url}")


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    visit = Visit(browser, url)
    yield visit
    visit.context.close()
    assert visit.wrong == []


def turn_to(page: Page, name: str) -> None:
    page.get_by_role("tab").nth(PAGES.index(name)).click()
    expect(page.locator(f"#rk-page-{name}")).to_be_visible()


def search(page: Page, question: str) -> None:
    page.fill("#rk-search-question textarea", question)
    page.click("#rk-search-go")
    expect(page.locator("#rk-search-results .rk-card").first).to_be_visible()


def test_a_question_in_one_language_finds_the_passage_in_another(visit: Visit):
    page = visit.open()
    search(page, FERRY)
    first = page.locator("#rk-search-results .rk-card").first
    expect(first).to_contain_text("English")
    expect(page.locator("#rk-search-results .rk-card", has_text="en-ferry-winter-timetable").first).to_be_visible()
    expect(page.locator("#rk-search-results")).to_contain_text("Japanese")
    expect(page.locator("#rk-search-results mark").first).to_be_visible()
    page.click("#rk-search-reading button")
    tokens = page.locator("#rk-search-reading .rk-token")
    expect(tokens.first).to_have_text("<bos>")
    expect(tokens.last).to_have_text("<eos>")
    expect(page.locator("#rk-search-reading .rk-special")).to_have_count(2)


def test_a_passage_opens_in_its_document_by_the_keyboard_alone(visit: Visit):
    page = visit.open()
    page.focus("#rk-search-question textarea")
    page.keyboard.type("When does the last boat leave Great Menk?")
    page.keyboard.press("Enter")
    button = page.locator("#rk-search-results [data-rk-open]").first
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open] #rk-here")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    button.focus()
    page.keyboard.press("Enter")  # the same passage again
    expect(page.locator("dialog[open] #rk-here")).to_be_visible()


def test_narrowed_to_one_language(visit: Visit):
    page = visit.open()
    page.click("#rk-search-options button")
    page.click("#rk-search-lang input")
    page.get_by_role("option", name=re.compile("Amharic")).click()
    search(page, FERRY)
    languages = page.locator("#rk-search-results .rk-lang")
    expect(languages.first).to_have_text("Amharic")
    assert set(languages.all_text_contents()) == {"Amharic"}


def test_two_ways_of_asking_side_by_side(visit: Visit):
    page = visit.open()
    turn_to(page, "compare")
    page.fill("#rk-compare-question textarea", FERRY)
    page.click("#rk-compare-go")
    expect(page.locator(".rk-side")).to_have_count(2)
    expect(page.locator(".rk-side").nth(1).locator(".rk-moved")).to_have_count(10)
    arrows = page.locator(".rk-moved").all_text_contents()
    assert any(text[0] in "▲▼✦" for text in arrows), arrows  # the instruction moves something
    expect(page.locator(".rk-side").nth(0).locator(".rk-moved")).to_have_count(0)


def test_an_answer_streams_and_its_citation_opens_the_source(visit: Visit, chat: ChatServer):
    chat.pieces, chat.pause = ["The first boat ", "leaves at 08:50 ", "on Sundays ", "[1]", "."], 0.4
    page = visit.open()
    turn_to(page, "ask")
    page.fill("#rk-ask-question textarea", FERRY)
    page.click("#rk-ask-go")
    said = page.locator("#rk-ask-answer .rk-said")
    expect(said).to_contain_text("The first boat")
    assert "Sundays" not in (said.text_content() or ""), "it came all at once"
    cite = page.locator("#rk-ask-answer .rk-cite")
    expect(cite).to_have_text("1")
    cite.click()
    expect(page.locator("#rk-source-1.rk-shown mark")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "rk-source-1"


def test_the_documents_may_not_say(visit: Visit, chat: ChatServer):
    chat.pieces, chat.pause = ["NOT_STATED"], 0.0
    page = visit.open()
    turn_to(page, "ask")
    page.fill("#rk-ask-question textarea", "Who won the football world cup?")
    page.click("#rk-ask-go")
    expect(page.locator("#rk-ask-answer")).to_contain_text(messages("en")["ask.silent"])


def test_a_model_that_writes_markup_is_shown_as_text(visit: Visit, chat: ChatServer):
    chat.pieces = ["<img src=x onerror=alert(1)> <a href='javascript:alert(2)'>click</a> ${alert(3)} {{alert(4)}} [1]"]
    page = visit.open()
    turn_to(page, "ask")
    page.fill("#rk-ask-question textarea", "anything")
    page.click("#rk-ask-go")
    expect(page.locator("#rk-ask-answer .rk-said")).to_contain_text("<img src=x onerror=alert(1)>")
    expect(page.locator("#rk-ask-answer .rk-said")).to_contain_text("${alert(3)} {{alert(4)}}")
    assert page.locator("#rk-ask-answer img, #rk-ask-answer a:not(.rk-cite)").count() == 0


def test_the_heat_map_the_bars_and_the_map(visit: Visit):
    page = visit.open()
    turn_to(page, "languages")
    page.click("#rk-languages-go")
    shown = page.locator("#rk-languages-shown")
    expect(shown.locator(".rk-heatmap tbody tr").first).to_be_visible(timeout=3 * SLOW)
    expect(shown.locator(".rk-map svg[role=img]")).to_be_visible()
    expect(shown).to_contain_text(re.compile(r"speak the question's language"))
    before = shown.locator(".rk-heatmap td").first.text_content()
    page.get_by_label("nDCG@10").check()
    expect(shown.locator(".rk-heatmap td").nth(1)).not_to_have_text(before or "")


HOSTILE = """<script>alert('script')</script> <img src=x onerror="alert('img')"> <a href="javascript:alert(1)">x</a>
"><svg onload=alert('svg')> ${alert('template')} {{constructor.constructor('alert(1)')()}} <iframe srcdoc=x></iframe>
The zebra lighthouse of Quillon is painted violet on Thursdays."""


def test_a_hostile_upload_is_found_shown_and_removed(visit: Visit, tmp_path: Path):
    path = tmp_path / "<img src=x onerror=alert(9)>.txt"
    path.write_text(HOSTILE, "utf-8")
    (tmp_path / "program.pdf").write_bytes(b"MZ\x90\x00")
    page = visit.open()
    turn_to(page, "documents")
    page.set_input_files("#rk-documents-files input[type=file]", [path, tmp_path / "program.pdf"])
    expect(page.locator("#rk-documents-files")).to_contain_text("program")
    page.click("#rk-documents-add")
    report = page.locator("#rk-documents-report .rk-report")
    expect(report).to_contain_text("1 added", timeout=4 * SLOW)
    expect(report).to_contain_text("program.pdf: its bytes are not those of .pdf")

    turn_to(page, "search")
    search(page, "Which colour has the zebra lighthouse of Quillon?")
    card = page.locator("#rk-search-results .rk-card", has_text="Quillon").first
    expect(card).to_contain_text("<script>alert('script')</script>")
    expect(card).to_contain_text("${alert('template')} {{constructor.constructor('alert(1)')()}}")
    assert card.locator("script, img, iframe, svg, a").count() == 0
    card.locator("[data-rk-open]").click()
    expect(page.locator("dialog[open]")).to_contain_text("Quillon")
    assert page.locator("dialog[open] :is(script, img, iframe, svg, a)").count() == 0
    page.keyboard.press("Escape")

    turn_to(page, "documents")
    page.fill("#rk-documents-filter input, #rk-documents-filter textarea", "onerror")
    row = page.locator("#rk-documents-list tbody tr")
    expect(row).to_have_count(1)
    assert row.locator("img").count() == 0
    page.evaluate("window.confirm = () => true")
    row.locator("[data-rk-remove]").click()
    expect(page.locator("#rk-documents-report")).to_contain_text("Removed")
    expect(page.locator("#rk-documents-list tbody tr")).to_have_count(0)


@pytest.mark.parametrize("language", ["ar", "he", "fa", "ur"] if PROVE else ["ar", "ur"])
def test_right_to_left_on_a_telephone(browser: Browser, url: str, language: str, tmp_path: Path):
    locale = {"ar": "ar-EG", "he": "he-IL", "fa": "fa-IR", "ur": "ur-PK"}[language]
    visit = Visit(browser, url, locale=locale)  # of the browser, not of the address
    page = visit.open()
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == [language, "rtl"]
    expect(page.locator("#rk-search-go")).to_have_text(messages(language)["search.go"])
    search(page, "When does the last boat leave Great Menk?")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    rank, title = page.locator(".rk-card header").first.locator(".rk-rank, h3").all()
    assert rank.bounding_box()["x"] > title.bounding_box()["x"]  # type: ignore[index]  # the first stands to the right
    english = page.locator(".rk-card .rk-text[lang=en]").first
    assert english.evaluate("e => getComputedStyle(e).direction") == "ltr"  # and its text keeps its own direction
    assert page.screenshot(path=tmp_path / "shot.png")
    visit.context.close()
    assert visit.wrong == []


@pytest.mark.parametrize("language", ["de", "zh", "am", "he"] if not PROVE else LANGUAGES)
def test_every_language_can_be_chosen_and_stays(visit: Visit, language: str):
    page = visit.open()
    page.select_option("#rk-language", language)
    page.wait_for_url(f"**/?lang={language}")
    visit.wrong.clear()  # whoever leaves a page cuts its connections, which it says
    expect(page.locator("#rk-search-go")).to_have_text(messages(language)["search.go"])
    again = visit.open()  # without the address saying so
    expect(again.locator("#rk-search-go")).to_have_text(messages(language)["search.go"])
    assert again.evaluate("document.documentElement.dir") == ("rtl" if language in RIGHT_TO_LEFT else "ltr")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, url: str, scheme: Any, chat: ChatServer):
    chat.pieces, chat.pause = ["Nine [1]."], 0.0
    visit = Visit(browser, url, color_scheme=scheme)
    page = visit.open()
    axe = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
    page.evaluate(axe)
    for name in PAGES:
        turn_to(page, name)
        if name == "search":
            search(page, FERRY)
            expect(page.locator("#rk-search-results mark")).to_have_count(5)
        elif name == "languages":
            page.click("#rk-languages-go")
            expect(page.locator(".rk-map svg[role=img]")).to_be_visible(timeout=3 * SLOW)
        elif name in ("compare", "ask"):
            page.fill(f"#rk-{name}-question textarea", FERRY)
            page.click(f"#rk-{name}-go")
            expect(page.locator(f"#rk-page-{name} .rk-card").first).to_be_visible()
        found = page.evaluate("axe.run()")["violations"]
        grave = [
            (v["id"], [node["html"][:200] for node in v["nodes"]])
            for v in found
            if v["impact"] in ("serious", "critical")
        ]
        assert grave == [], (name, scheme)
    visit.context.close()
    assert visit.wrong == []


def test_an_answer_holds_up_nothing():
    """While one waits for the corpus, others go on; while one is told, the corpus can be exchanged."""
    from apps.pages.ask import answered

    free, leased = threading.Event(), 0
    encoder = HashEncoder()

    @contextmanager
    def lease() -> Iterator[Retriever]:
        nonlocal leased
        assert free.wait(5), "whoever waits stops everybody"
        leased += 1
        yield Retriever(store, encoder)
        leased -= 1

    async def ask() -> list[Answer | None]:
        asyncio.get_running_loop().call_later(0.1, free.set)
        told = []
        async for _, answer, _ in answered(desk, "When does the ferry leave?"):
            assert not leased
            told.append(answer)
        return told

    desk: Any = SimpleNamespace(library=SimpleNamespace(lease=lease), settings=Settings(_env_file=None))
    text = "The ferry leaves at nine."
    with open_store(":memory:", "town", encoder) as store:
        passage = Passage(str(uuid.UUID(int=1)), text, "en", "d", "/d", 0, "h", 1)
        store.upsert([passage], encoder.encode_passages([text]))
        with ThreadPoolExecutor(1) as apart:  # the browser's tests have a loop in this thread
            waits, answer = apart.submit(asyncio.run, ask()).result()
    assert waits is None and answer is not None and answer.hits[0].passage == passage


def test_the_guards_of_the_server(url: str):
    with httpx.Client(base_url=url) as client:
        page = client.get("/")
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert client.get("/monitoring").status_code in (403, 404)
        assert client.get("/gradio_api/monitoring/summary").status_code in (403, 404)
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)
        assert client.get("/docs").status_code == 404
        config = client.get("/config").json()
        assert not config["run_history"] and not config["footer_links"] and not config["analytics_enabled"]
        assert config["max_file_size"] == 20_000_000
        refused = client.post("/gradio_api/upload", files={"files": ("big.txt", b"x" * 20_000_001)})
        assert refused.status_code == 413


def test_uploads_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from starlette.applications import Starlette
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.testclient import TestClient

    from apps.site import _bounded

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    together = threading.Barrier(2, timeout=10)

    def served(settings: AppSettings) -> TestClient:
        async def upload(request: Any) -> Response:
            body = await request.body()
            if body.startswith(b"slow"):
                await asyncio.to_thread(together.wait)  # the other is asked meanwhile
                await asyncio.to_thread(together.wait)
            (tmp_path / uuid.uuid4().hex).write_bytes(body)
            return Response()

        site = Starlette(routes=[Route("/gradio_api/upload", upload, methods=["POST"])])
        site.add_middleware(BaseHTTPMiddleware, dispatch=_bounded(settings))
        return TestClient(site)

    def send(client: TestClient, content: Any, **headers: str) -> int:
        return client.post("/gradio_api/upload", content=content, headers=headers).status_code

    with served(AppSettings(read_only=True)) as client:
        assert send(client, b"x") == 403 and not list(tmp_path.iterdir())
    with served(AppSettings(uploads_bytes=3000)) as client:
        assert send(client, iter([b"x"])) == 411
        assert send(client, iter([b"x" * 9000]), **{"content-length": "1", "transfer-encoding": "chunked"}) == 411
        assert send(client, b"x" * 3001) == 507
        with ThreadPoolExecutor(1) as apart:
            slow = apart.submit(send, client, b"slow".ljust(1600))
            together.wait()
            assert send(client, b"x" * 1600) == 507
            together.wait()
            assert slow.result() == 200
        assert send(client, b"x" * 1600) == 507 and send(client, b"x" * 1400) == 200
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 3000


def test_programs_can_ask_too(url: str, chat: ChatServer):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    chat.pieces, chat.pause = ["At nine ", "[1]."], 0.0
    client = Client(url, verbose=False)
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/search", "/read", "/compare", "/ask", "/documents", "/status"}
    assert all(endpoint["description"] for endpoint in named.values())
    found = client.predict(FERRY, k=3, api_name="/search")
    assert found["language"] == "ja" and len(found["hits"]) == 3
    assert found["hits"][0]["ranks"]["dense"] == 1
    assert client.predict(FERRY, language="am", api_name="/search")["hits"][0]["lang"] == "am"
    read = client.predict(FERRY, api_name="/read")
    assert read["prompt"].endswith(FERRY) and read["tokens"][0]["special"]
    compared = client.predict(FERRY, api_name="/compare")
    assert len(compared["left"]) == len(compared["right"]) == 10
    assert client.predict(FERRY, api_name="/ask")["text"] == "At nine [1]."
    assert len(client.predict("ferry", api_name="/documents")) >= 2
    assert client.predict(api_name="/status")["corpus"] == "town"
    with pytest.raises(AppError, match="empty"):
        client.predict("  ", api_name="/search")
    with pytest.raises(AppError, match="use hybrid"):
        client.predict(FERRY, mode="fast", api_name="/search")


def site(corpus: str, store: str, **variables: Any) -> Any:
    """The app in this process, where what it says is all that counts."""
    from apps.site import create

    return create(Settings(store=store, _env_file=None, **variables), corpus)


def test_what_is_missing_is_told_with_what_to_do(browser: Browser, tmp_path: Path, mistral_folder: Path):
    small, none = str(mistral_folder), str(tmp_path / "none")
    cases = [
        (site("nothing", none, model=small), "trouble.empty"),
        (site("nothing", none, model=str(tmp_path / "no-model")), "trouble.model"),
        (site("nothing", "http://127.0.0.1:9", model=small), "trouble.server"),
    ]
    for app, name in cases:
        with serving(app) as url:
            visit = Visit(browser, url)
            page = visit.open()
            page.fill("#rk-search-question textarea", FERRY)
            page.click("#rk-search-go")
            expect(page.locator("#rk-search-results .rk-notice")).to_contain_text(messages("en")[name])
            expect(page.locator("#rk-search-results .rk-notice")).to_contain_text(messages("en")[f"{name}.help"])
            visit.context.close()
            assert visit.wrong == []


@pytest.mark.parametrize(
    ("host", "variables", "custom", "shown"),
    [
        ("127.0.0.1", {}, True, True),
        ("127.0.0.1", {"app": AppSettings(auth=SecretStr("ana:open-sesame"))}, False, True),
        ("0.0.0.0", {"app": AppSettings(open=True)}, False, True),
        ("127.0.0.1", {"app": AppSettings(open=True)}, False, True),  # behind a proxy that lets strangers in
        ("127.0.0.1", {"tenant": "bo"}, True, False),
    ],
)
def test_strangers_choose_among_the_models_that_the_operator_named(
    host: str, variables: dict[str, Any], custom: bool, shown: bool, tmp_path: Path
):
    from gradio.routes import App

    from apps.site import create

    settings = Settings(model="mini", store=str(tmp_path), _env_file=None, **variables)
    site = create(settings, "x", rival="mini-base", host=host)
    [gradio] = [route.app for route in site.routes if isinstance(getattr(route, "app", None), App)]
    parts = [part["props"] for part in gradio.get_blocks().get_config_file()["components"]]
    [offered] = [part for part in parts if part.get("choices") == [("mini", "mini"), ("mini-base", "mini-base")]]
    assert (offered["allow_custom_value"], offered["visible"]) == (custom, shown)
    told = [part["visible"] for part in parts if "trouble.tenants.help" in str(part.get("value"))]
    assert told == [not shown]


def test_who_may_come_in(tmp_path: Path):
    from apps.site import create

    open_to_all = Settings(store=str(tmp_path), _env_file=None)
    with pytest.raises(ValueError, match="RAGKIT_APP_AUTH"):
        create(open_to_all, "x", host="0.0.0.0")
    with pytest.raises(ValueError, match="user:password"):
        site("x", str(tmp_path), app=AppSettings(auth=SecretStr("ana:")))
    guarded = site("x", str(tmp_path), app=AppSettings(auth=SecretStr("ana:open-sesame")))
    with serving(guarded) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/config").status_code == 401
        body = {"data": ["x"], "event_data": None, "fn_index": 0, "session_hash": "s"}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 401
        assert client.post("/login", data={"username": "ana", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "ana", "password": "open-sesame"}).status_code == 200
        assert client.get("/config").status_code == 200
        assert "open-sesame" not in json.dumps(client.get("/config").json())
