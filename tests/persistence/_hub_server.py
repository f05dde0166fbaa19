"""A small hub on loopback: repositories of files, by commit, in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Answers what the client asks, and notes it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: Commits of each repository, oldest first.
        self.commits: dict[str, list[tuple[str, Files]]] = {}
        #: Files whose bytes were sent.
        self.sent: list[str] = []
        self.private: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def commit(self, repository: str, files: Files) -> str:
        """Add files to those of the last commit, and return the name of a new one."""
        history = self.commits.setdefault(repository, [])
        held = {**(history[-1][1] if history else {}), **files}
        number = f"{repository}{len(history)}".encode()
        name = hashlib.sha1(number, usedforsecurity=False).hexdigest()
        history.append((name, held))
        return name

    def find(self, repository: str, revision: str) -> tuple[str, Files] | None:
        history = self.commits.get(repository, [])
        if revision == "main" and history:
            return history[-1]
        return next((one for one in history if one[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._resolve(body=False)

    def do_GET(self) -> None:
        self._resolve(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        place = urlsplit(self.path).path.strip("/").split("/")
        if place == ["api", "repos", "create"]:
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            is_private = asked.get("private") or asked.get("visibility") == "private"
            self.server.private[repository] = is_private
            if repository not in self.server.commits:
                self.server.commit(repository, {})
            self._answer({"url": f"{self.server.url}/{repository}"})
        elif place == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif place[:2] == ["api", "models"] and place[4] == "preupload":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            self._answer({"files": [{**m, "shouldIgnore": False} for m in modes]})
        elif place[:2] == ["api", "models"] and place[4] == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            name = self.server.commit("/".join(place[2:4]), files)
            url = f"{self.server.url}/{'/'.join(place[2:4])}/commit/{name}"
            self._answer({"commitUrl": url, "commitOid": name})
        else:
            self._answer({}, status=404)

    def _resolve(self, *, body: bool) -> None:
        place = [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        if place[:2] == ["api", "models"]:
            self._describe("/".join(place[2:4]), place[5:] or ["main"])
            return
        repository, revision = "/".join(place[:2]), place[3]
        found = self.server.find(repository, revision)
        if found is None:
            is_known = repository in self.server.commits
            code = "RevisionNotFound" if is_known else "RepoNotFound"
            self._answer({}, status=404, headers={"X-Error-Code": code})
            return
        name, files = found
        file = "/".join(place[4:])
        headers = {"X-Repo-Commit": name}
        if file not in files:
            headers["X-Error-Code"] = "EntryNotFound"
            self._answer({}, status=404, headers=headers)
            return
        data = files[file]
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        headers["Accept-Ranges"] = "bytes"
        if body:
            self.server.sent.append(file)
        self._send(200, data, headers, body=body)

    def _describe(self, repository: str, revision: list[str]) -> None:
        found = self.server.find(repository, revision[0])
        if found is None:
            self._answer({}, status=404, headers={"X-Error-Code": "RepoNotFound"})
            return
        name, files = found
        siblings = [{"rfilename": file} for file in files]
        self._answer({"id": repository, "sha": name, "siblings": siblings})

    def _answer(
        self, found: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(found).encode()
        kind = {"Content-Type": "application/json"}
        self._send(status, data, {**kind, **(headers or {})}, self.command != "HEAD")

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], body: bool
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub, in a thread of its own."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
