"""The part of the Hugging Face hub that a push speaks with, in a thread of this process; the client is the real one."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "hf_aTokenThatNobodyMaySeeAnywhere1234"


@dataclass
class Repository:
    """What the hub holds of one repository."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@dataclass
class Hub:
    """Repositories by `models/ORG/NAME` or `datasets/ORG/NAME`, and the tokens that requests came with."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    is_broken: bool = False

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.is_broken:
            return 500, {"error": f"out of order, and you said {TOKEN}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
            self.repositories[name] = Repository(asked.get("visibility") == "private" or asked.get("private") is True)
            return 200, {"url": self._address(name)}
        found = re.fullmatch(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/(.*))?", path)
        if not found or found[1] not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[found[1]]
        if method == "GET":
            files = [{"rfilename": name} for name in repository.files]
            name = found[1].partition("/")[2]
            return 200, {"id": name, "private": repository.private, "sha": "0" * 40, "siblings": files}
        if found[2] == "preupload/main":
            return 200, {"files": [self._known(repository, file["path"]) for file in json.loads(body)["files"]]}
        assert found[2] == "commit/main", path
        for line in filter(None, body.split(b"\n")):
            entry = json.loads(line)
            if entry["key"] == "file":
                repository.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            if entry["key"] == "deletedFile":
                del repository.files[entry["value"]["path"]]
        repository.commits += 1
        return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self._address(found[1])}/commit/0"}

    def _address(self, name: str) -> str:
        return f"{self.url}/{name.removeprefix('models/')}"

    def _known(self, repository: Repository, name: str) -> dict[str, Any]:
        content = repository.files.get(name)
        git = None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": git}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process takes for the real one, with a token in the environment."""
    import huggingface_hub.constants

    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            hub.tokens.add(self.headers.get("Authorization"))
            status, answer = hub.answer(self.command, self.path.partition("?")[0], self.rfile.read(length))
            data = json.dumps(answer).encode()
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do  # noqa: N815

        def log_message(self, *words: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
