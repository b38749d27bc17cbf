"""As much of W&B's server as it takes to open a page: answers that one can stop at any moment."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

FAKE_KEY = "5ecre7" * 7
"""A key of a length that wandb accepts, to be looked for where it must not be."""
_PROJECT = {"id": "cA==", "name": "qexp", "entity": {"id": "ZQ==", "name": "me"}}


def _bucket(name: str) -> dict[str, Any]:
    return {
        "id": "aWQ=", "name": name, "displayName": name, "description": None, "config": "{}",
        "sweepName": None, "project": _PROJECT, "historyLineCount": 0,
    }  # fmt: skip


_ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "query RunResumeStatus": lambda variables: {"model": {**_PROJECT, "bucket": None}},
    "mutation UpsertBucket": lambda variables: {
        "upsertBucket": {"bucket": _bucket(str(variables.get("name"))), "inserted": True}
    },
    "query Viewer": lambda variables: {
        "viewer": {
            "id": "dQ==",
            "entity": "me",
            "username": "me",
            "email": "",
            "flags": "{}",
            "teams": {"edges": []},
        }
    },
    "query ArtifactType": lambda variables: {"project": None},
    "mutation CreateArtifact": lambda variables: {
        "createArtifact": {
            "artifact": {
                "id": "YQ==",
                "state": "COMMITTED",
                "artifactSequence": {"id": "cw==", "latestArtifact": None},
            }
        }
    },
}


class Server:
    """Answers on a port of this machine until it is told to be ``silent``, which then holds requests open."""

    def __init__(self) -> None:
        self.silent = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.deleted: set[str] = set()
        """Ids of pages that were deleted, which the real server refuses for ever."""
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def sent(self, operation: str) -> list[dict[str, Any]]:
        """Requests of an operation."""
        return [each for each in self.requests if operation in str(each.get("query"))]

    def close(self) -> None:
        """Nobody listens any more."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if not self._ended.is_set():
            self.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *words: object) -> None:
                """Nothing."""

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                try:
                    request = json.loads(body)
                except ValueError:  # telemetry, which is no JSON
                    request = {}
                server.requests.append(request)
                query = str(request.get("query"))
                variables = request.get("variables") or {}
                if "mutation UpsertBucket" in query and variables.get("name") in server.deleted:
                    message = "run was previously created and deleted; try a new run name"
                    return self._answer({"errors": [{"message": message}], "data": None}, status=409)
                if "mutation CreateRunFiles" in query:
                    return self._answer({"data": {"createRunFiles": self._places(variables["files"])}})
                data = next((answer(variables) for name, answer in _ANSWERS.items() if name in query), {})
                self._answer({"data": data})

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._answer({})

            def _places(self, names: list[str]) -> dict[str, Any]:
                files = [{"name": name, "uploadUrl": f"{server.url}/upload/{name}"} for name in names]
                return {"runID": "aWQ=", "uploadHeaders": [], "files": files}

            def _answer(self, tree: dict[str, Any], status: int = 200) -> None:
                if server.silent.is_set():
                    server._ended.wait(60)
                    return
                body = json.dumps(tree).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
