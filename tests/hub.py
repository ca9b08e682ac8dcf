"""A hub on this machine's loopback, as far as real clients of huggingface_hub use one: repositories on disk
that are created, pushed to (small files in the commit, large ones by git LFS) and loaded from.

    with Hub(folder) as hub:
        os.environ["HF_ENDPOINT"] = hub.address

Clients need HF_HUB_DISABLE_XET=1, since the newer protocol of uploading is not spoken here.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

WRITES, READS = "hf_" + 3 * "MayWriteHere", "hf_" + 3 * "MayReadAlone"
USER = "somebody"
LARGE = 100_000  # bytes from which a file goes by git LFS


class Hub:
    """The server; `folder` holds a folder of files for each repository.

    Attributes:
        address: to be given as HF_ENDPOINT.
        requests: method and path of each, in order.
        tokens: that requests came with.
        fails: while this is true of a path and the body sent, the server breaks the connection off.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        self.fails = lambda path, body: False
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, cache: Path) -> dict[str, str]:
        """Variables by which a client finds this hub, with its own cache and its own login."""
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.address, "HF_HUB_DISABLE_XET": "1"}
        return online | {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def files(self, repository: str) -> dict[str, bytes]:
        """Contents by path."""
        folder = self.folder / repository
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def revision(self, repository: str) -> str:
        """A name for the present contents."""
        digest = hashlib.sha1()
        for path, contents in sorted(self.files(repository).items()):
            digest.update(f"{path} {len(contents)} {hashlib.sha1(contents).hexdigest()}\n".encode())
        return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {path}")
            self.hub.tokens.add(token)
            if self.hub.fails(path, self.body):
                self.close_connection = True
                self.connection.close()
                return
            for methods, pattern, answer in ROUTES:
                if self.command in methods and (found := re.fullmatch(pattern, path)):
                    if token not in ("", WRITES, READS):
                        self._refuse(401, f"Invalid credentials: {token}")
                    else:
                        answer(self, token, *found.groups())
                    return
        self._refuse(404, f"no such address: {path}")

    def _send(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, code: int = 200) -> None:
        self._send(json.dumps(value).encode(), code, Content_Type="application/json")

    def _refuse(self, code: int, message: str, **headers: str) -> None:
        self._send(json.dumps({"error": message}).encode(), code, X_Error_Message=message, **headers)

    def _may_write(self, token: str, repository: str) -> bool:
        if not token:
            self._refuse(401, "Log in first")
        elif token != WRITES or not repository.startswith(f"{USER}/"):
            self._refuse(403, "You have no right to write here")
        return token == WRITES and repository.startswith(f"{USER}/")

    def _exists(self, repository: str) -> bool:
        if not (self.hub.folder / repository).is_dir():
            self._refuse(404, "Repository not found", X_Error_Code="RepoNotFound")
        return (self.hub.folder / repository).is_dir()

    def whoami(self, token: str) -> None:
        role = "write" if token == WRITES else "read"
        about = {"type": "user", "name": USER, "orgs": [], "auth": {"accessToken": {"role": role}}}
        self._json(about) if token else self._refuse(401, "Log in first")

    def create(self, token: str) -> None:
        asked = json.loads(self.body)
        repository = f"{asked.get('organization') or USER}/{asked['name']}"
        if self._may_write(token, repository):
            exists = (self.hub.folder / repository).is_dir()
            (self.hub.folder / repository).mkdir(parents=True, exist_ok=True)
            found = {"url": f"{self.hub.address}/{repository}", "name": repository}
            self._json(found, 409 if exists else 200)

    def validate(self, token: str) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, token: str, repository: str) -> None:
        if self._exists(repository) and self._may_write(token, repository):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._json({"files": files})

    def batch(self, token: str, repository: str) -> None:
        if self._may_write(token, repository):
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    "actions": {"upload": {"href": f"{self.hub.address}/objects/{one['oid']}"}},
                }
                for one in json.loads(self.body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})

    def store(self, token: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._refuse(400, "The contents are not those that were announced")
            return
        (self.hub.folder / "objects").mkdir(exist_ok=True)
        (self.hub.folder / "objects" / oid).write_bytes(self.body)
        self._send(b"")

    def commit(self, token: str, repository: str) -> None:
        if not (self._exists(repository) and self._may_write(token, repository)):
            return
        folder = self.hub.folder / repository
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "deletedFile":
                (folder / value["path"]).unlink(missing_ok=True)
            if entry["key"] not in ("file", "lfsFile"):
                continue
            large = entry["key"] == "lfsFile"
            contents = (self.hub.folder / "objects" / value["oid"]).read_bytes() if large else None
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(value["content"]) if contents is None else contents)
        address = f"{self.hub.address}/{repository}/commit/{self.hub.revision(repository)}"
        self._json({"success": True, "commitUrl": address, "commitOid": self.hub.revision(repository)})

    def about(self, token: str, repository: str, *unused: str) -> None:
        if self._exists(repository):
            siblings = [{"rfilename": path} for path in self.hub.files(repository)]
            about = {"id": repository, "sha": self.hub.revision(repository), "siblings": siblings}
            self._json(about | {"private": False, "tags": [], "downloads": 0})

    def tree(self, token: str, repository: str, below: str | None) -> None:
        if not self._exists(repository):
            return
        files = {
            path: contents
            for path, contents in self.hub.files(repository).items()
            if path.startswith(f"{below}/" if below else "")
        }
        if below and not files:
            self._refuse(404, f"{below} does not exist", X_Error_Code="EntryNotFound")
            return
        oids = {path: hashlib.sha1(contents).hexdigest() for path, contents in files.items()}
        self._json([{"type": "file", "path": p, "size": len(files[p]), "oid": oids[p]} for p in files])

    def resolve(self, token: str, repository: str, file: str) -> None:
        if not self._exists(repository):
            return
        contents = self.hub.files(repository).get(file)
        commit = {"X_Repo_Commit": self.hub.revision(repository)}
        if contents is None:
            self._refuse(404, f"{file} does not exist", X_Error_Code="EntryNotFound", **commit)
        else:
            self._send(contents, ETag=f'"{hashlib.sha1(contents).hexdigest()}"', **commit)


# A model, or a dataset: those lie in the folder `datasets`.
NAME = r"(?:models/)?((?:datasets/)?[\w.-]+/[\w.-]+)"
ROUTES = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("POST",), rf"/api/{NAME}/preupload/[\w.-]+", _Handler.preupload),
    (("POST",), rf"/api/{NAME}/commit/[\w.-]+", _Handler.commit),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/objects/(\w+)", _Handler.store),
    (("GET",), rf"/api/{NAME}/tree/[\w.-]+(?:/(.+))?", _Handler.tree),
    (("GET",), rf"/api/{NAME}(?:/revision/([\w.-]+))?", _Handler.about),
    (("GET", "HEAD"), rf"/{NAME}/resolve/[\w.-]+/(.+)", _Handler.resolve),
]
