"""A real server for tests: uvicorn on a free port of loopback, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from pydantic import SecretStr

from ragkit.server import ServeConfig, create_app


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The server's URL while the block runs."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def serving_model(encoder: Any, keys: Sequence[str] = (), **knobs: Any) -> Iterator[str]:
    config = ServeConfig(**{"name": "tiny", **knobs})
    with serving(create_app(encoder, config, [SecretStr(key) for key in keys])) as url:
        yield url
