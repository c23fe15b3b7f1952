"""The demo: its corpus, a tour of it in the terminal, and the web app that shows one index serving every language.

quiet                      Gradio without telemetry
words, messages/           the app's words in twelve languages, and which of them a visitor gets
remember                   an encoder that keeps what it encoded a moment ago
explain                    a search with its reasons: ranks of each half, tokens read, milliseconds
library, build             the open corpus; the child process that changes it
uploads                    what may come in as a file
languages, maps, charts    question language x document language; what lies near what; drawings of both
markup, cards              HTML escaped by default; hits, answers and reports in it
desk, pages/               what the pages share; search, compare, ask, languages, documents
api, site, command         endpoints for programs; one server with its guards; `ragkit app`
tour, running, screenshots `make demo` in the terminal; the app while a block runs; the README's pictures
"""
