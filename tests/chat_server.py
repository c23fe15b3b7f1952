"""A chat server on loopback that says what a test tells it to: what is done with an answer, whatever the model."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ChatServer:
    """It streams ``pieces``, ``pause`` seconds after each, and keeps what it was asked."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.finish: str | None = "stop"
        self.status = 200
        self.pause = 0.0
        self.seen: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(server.status)
                self.send_header("content-type", "text/event-stream" if server.status == 200 else "application/json")
                self.end_headers()
                if server.status != 200:
                    self.wfile.write(json.dumps({"error": {"message": "no"}}).encode())
                    return
                for n, piece in enumerate([*server.pieces, ""]):
                    last = n == len(server.pieces)
                    if last and server.finish is None:
                        return
                    choice = {"index": 0, "delta": {"content": piece}, "finish_reason": server.finish if last else None}
                    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
                    time.sleep(server.pause)
                    self.wfile.write(f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
