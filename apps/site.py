"""The pages behind one server: its theme, its guards, and the language that a visitor gets.

Gradio is mounted on an application of our own, for what it does not do itself: a health check, a policy that lets
the browser load nothing from elsewhere, host names that are refused where it listens on loopback (DNS rebinding),
and the page's language, which must stand in the page before its first script runs, since labels are translated by
the browser's. The address says it (``?lang=ar``), a cookie remembers it, else the browser's own counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from apps import api
from apps.charts import STYLE
from apps.desk import Desk
from apps.library import Library
from apps.pages import ask, compare, documents, languages, search
from apps.quiet import gr, themes
from apps.words import COOKIE, LANGUAGES, Words, negotiate, translations
from ragkit.settings import AppSettings, Settings

HERE = Path(__file__).parent
PAGES: dict[str, Callable[[Desk], None]] = {
    "search": search.build,
    "compare": compare.build,
    "ask": ask.build,
    "languages": languages.build,
    "documents": documents.build,
}
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
POLICY = (  # Gradio's page has inline scripts and styles, and compiles templates
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; "
    "form-action 'self'; object-src 'none'"
)
READER = '<dialog class="rk-reader"><form method="dialog"><button class="rk-quiet"><span aria-hidden="true">×</span><span class="rk-unseen" data-rk-say="close"></span></button></form><div>${value}</div></dialog>'  # noqa: E501
SHOWS = """
watch('value', () => {
  const dialog = element.querySelector('dialog');
  if (!dialog || !props.value) return;
  dialog.setAttribute('aria-label', dialog.querySelector('h2, strong')?.textContent || '');
  if (!dialog.open) dialog.showModal();
  const here = dialog.querySelector('#rk-here');
  if (here) here.scrollIntoView({block: 'center'});
});
element.addEventListener('click', event => { if (event.target.tagName === 'DIALOG') event.target.close(); });
"""


def theme() -> themes.Base:
    """Paper, ink and one green: nothing that competes with the documents."""
    fonts = ["system-ui", "Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Ethiopic", "sans-serif"]
    base = themes.Base(
        primary_hue=themes.colors.teal,
        neutral_hue=themes.colors.stone,
        radius_size=themes.sizes.radius_md,
        spacing_size=themes.sizes.spacing_md,
        font=fonts,
        font_mono=["ui-monospace", "Noto Sans Mono", "monospace"],
    )
    return base.set(
        body_background_fill="#faf8f4",
        body_background_fill_dark="#14181a",
        body_text_color="#1c2426",
        body_text_color_dark="#e6e9e6",
        body_text_color_subdued="#566064",
        body_text_color_subdued_dark="#a3adab",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b2123",
        block_border_color="#e3ded4",
        block_border_color_dark="#2e3739",
        border_color_primary="#d8d2c6",
        border_color_primary_dark="#394447",
        block_label_text_color="#485255",
        block_label_text_color_dark="#b4bdbb",
        input_border_color="#d8d2c6",
        input_border_color_dark="#394447",
        input_border_color_focus="#0d5c55",
        input_border_width="1px",
        color_accent="#0d5c55",
        color_accent_soft="#e4efec",
        color_accent_soft_dark="#1f3733",
        checkbox_background_color_selected="#0d5c55",
        checkbox_label_background_fill_selected="#e4efec",
        checkbox_label_background_fill_selected_dark="#1f3733",
        block_title_text_color="#3c4649",
        block_title_text_color_dark="#c5cdcb",
        block_info_text_color="#566064",
        block_info_text_color_dark="#a3adab",
        block_shadow="none",
        input_background_fill="#ffffff",
        input_background_fill_dark="#14181a",
        input_placeholder_color="#6b7376",
        input_placeholder_color_dark="#98a19f",
        button_primary_background_fill="#0d5c55",
        button_primary_background_fill_hover="#0a4842",
        button_primary_background_fill_dark="#1c8074",
        button_primary_background_fill_hover_dark="#176a60",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#efebe2",
        button_secondary_background_fill_dark="#2a3335",
        button_secondary_text_color="#1c2426",
        button_secondary_text_color_dark="#e6e9e6",
        link_text_color="#0d5c55",
        link_text_color_dark="#6fc9bb",
    )


def build(desk: Desk) -> gr.Blocks:
    """The five pages."""
    t = desk.t
    with gr.Blocks(title="ragkit", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        desk.language = gr.Textbox("en", visible=False)
        desk.reader = gr.HTML("", html_template=READER, js_on_load=SHOWS, apply_default_css=False, elem_id="rk-reader")
        gr.HTML(_header(desk), apply_default_css=False, elem_id="rk-header")
        with gr.Tabs(elem_id="rk-tabs"):
            for name, page in PAGES.items():
                with gr.Tab(t(f"page.{name}"), id=name, elem_id=f"rk-page-{name}"):
                    gr.Markdown(t(f"page.{name}.told"), elem_classes="rk-told rk-auto")
                    page(desk)
        api.add(desk)
        known = blocks.load(None, None, desk.language, js="() => window.ragkitLanguage", api_visibility="private")
        functions = [function for function, _ in desk.refreshed]
        known.then(
            lambda language: [function(language) for function in functions],
            desk.language,
            [component for _, component in desk.refreshed],
            api_visibility="private",
            show_progress="hidden",
        )
    return blocks.queue(max_size=desk.settings.app.visitors, default_concurrency_limit=4)


def _header(desk: Desk) -> str:
    options = "".join(f'<option value="{code}" lang="{code}">{name}</option>' for code, name in LANGUAGES.items())
    return (
        f'<header class="rk-header"><h1>ragkit</h1><p><bdi>{escape(desk.library.corpus)}</bdi></p>'
        f'<label><span data-rk-say="language"></span> <select id="rk-language">{options}</select></label>'
        '<button type="button" id="rk-dark" class="rk-quiet"><span aria-hidden="true">◐</span>'
        '<span class="rk-unseen" data-rk-say="dark"></span></button></header>'
    )


def create(
    settings: Settings,
    corpus: str,
    *,
    questions: Path | None = None,
    examples: Sequence[str] = (),
    rival: str = "",
    host: str = "127.0.0.1",
) -> FastAPI:
    """The application, for any ASGI server that listens on ``host``. Raises ValueError where it would be open to
    others without a login."""
    auth = login(settings, host)
    library = Library(settings, corpus, rival=rival, alone=auth is None and not settings.app.open and host in LOOPBACK)
    i18n = gr.I18n(**{language: dict(said) for language, said in translations().items()})
    desk = Desk(library, settings, i18n, questions, examples, rival)
    site = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, on_shutdown=[library.close])
    site.state.library = library

    @site.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    site.middleware("http")(_in_their_language)
    site.middleware("http")(_bounded(settings.app))
    if host in LOOPBACK:
        site.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]", "testserver"])
    return gr.mount_gradio_app(
        site,
        build(desk),
        path="/",
        server_name=host,
        auth=auth,
        theme=theme(),
        css=(HERE / "style.css").read_text("utf-8") + STYLE,
        i18n=i18n,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=settings.app.upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )


def login(settings: Settings, host: str) -> tuple[str, str] | None:
    """User and password that visitors must know, if any. Raises ValueError."""
    secret = settings.app.auth.get_secret_value() if settings.app.auth else ""
    user, colon, password = secret.partition(":")
    if secret and not (user and colon and password):
        raise ValueError("RAGKIT_APP_AUTH must be user:password, both not empty")
    if not secret and host not in LOOPBACK and not settings.app.open:
        raise ValueError(
            f"{host} is not loopback, and no login is set: set RAGKIT_APP_AUTH=user:password, or RAGKIT_APP_OPEN=1 "
            "where something in front of it asks for one"
        )
    return (user, password) if secret else None


def _bounded(app: AppSettings) -> Callable[[Request, RequestResponseEndpoint], Awaitable[Response]]:
    """Gradio's upload takes files from whoever may see the page, and keeps them for hours: none where nothing may be
    added, else no more at a time than may be kept."""

    turn = asyncio.Lock()
    admitted = 0  # bytes of uploads under way

    def held() -> int:
        total = 0
        for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"):
            with suppress(FileNotFoundError):  # Gradio moves them
                total += file.stat().st_size if file.is_file() else 0
        return total

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        nonlocal admitted
        if request.url.path.rstrip("/") != "/gradio_api/upload":
            return await call_next(request)
        if app.read_only:
            return Response("nothing can be added here", 403)
        told = request.headers.get("content-length", "")
        if not told.isdecimal() or "transfer-encoding" in request.headers:
            return Response("say how long it is (Content-Length)", 411)
        async with turn:
            if int(told) + admitted + await asyncio.to_thread(held) > app.uploads_bytes:
                return Response("too much was uploaded lately: try again in an hour or two", 507)
            admitted += int(told)
        try:
            return await call_next(request)
        finally:
            admitted -= int(told)

    return guard


async def _in_their_language(request: Request, call_next: RequestResponseEndpoint) -> Response:
    response = await call_next(request)
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    if request.url.path != "/" or not response.headers.get("content-type", "").startswith("text/html"):
        return response
    asked = request.query_params.get("lang")
    language = negotiate(asked, request.cookies.get(COOKIE), request.headers.get("accept-language", ""))
    body = b"".join([part async for part in response.body_iterator])  # type: ignore[attr-defined]
    headers = {k: v for k, v in response.headers.items() if k not in ("content-length", "content-type")}
    headers |= {"Content-Language": language, "Vary": "Accept-Language, Cookie"}
    made = Response(localised(body.decode("utf-8"), language), response.status_code, headers, "text/html")
    if asked in LANGUAGES:
        made.set_cookie(COOKIE, language, max_age=31_536_000, samesite="lax", httponly=True)
    return made


def localised(page: str, language: str) -> str:
    """Gradio's page with our script first, which knows the language, and without Gradio's own description."""
    words = Words(language)
    said = {name: words(f"header.{name}") for name in ("language", "dark")} | {"close": words("hit.close")}
    facts = json.dumps({"language": language, "direction": words.direction, "said": said}).replace("<", "\\u003c")
    script = (HERE / "page.js").read_text("utf-8").replace("__FACTS__", facts)
    page = re.sub(r"<meta\s+(?:property=\"og:|name=\"twitter:)[^>]*>", "", page)
    page = page.replace('lang="en"', f'lang="{language}" dir="{words.direction}"', 1)
    return page.replace("<head>", f"<head><script>{script}</script>", 1)


def run(site: Any, host: str, port: int) -> None:
    """Serve until a signal comes."""
    uvicorn.run(site, host=host, port=port, log_level="warning", server_header=False, proxy_headers=False)
