"""The demo: its corpus, a tour of it in the terminal, and the web app that shows one index serving every language.

words, messages/     the app's words in twelve languages, and which of them a visitor gets
remember             an encoder that keeps what it encoded a moment ago
library, build       the open corpus; what changes it runs in a child process
uploads              what may come in as a file
explain              a search with its reasons: ranks of each half, tokens read, milliseconds
languages, charts    question language x document language; drawings of it
cards                hits, answers and reports as HTML, every text escaped
pages/               the five pages: search, compare, ask, languages, documents
site, command        the pages behind one server, with its guards; `ragkit app`
tour                 `make demo` in the terminal
"""
