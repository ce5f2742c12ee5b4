"""Downloads against a server on this machine: resuming, checksums, pages in place of data, announced digests."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.data import download
from apd_bench.data.download import fetch

CONTENT = bytes(range(256)) * 5000


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    log: list[tuple[str, str]]
    cut_after: int = 0
    statuses: list[int]
    announced: str = ""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.log.append((self.path, self.headers.get("Range", "")))
        content = self.server.files.get(self.path, b"")
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
        elif self.path.startswith("/moved/"):
            tag = f'"{self.server.announced}"'
            self.answer(302, {"Location": self.path.removeprefix("/moved"), "X-Linked-ETag": tag, "Content-Length": 0})
        elif begin >= len(content):
            self.send_error(416 if content else 404)
        else:
            self.answer(206 if begin else 200, {"Content-Length": len(content) - begin})
            end, self.server.cut_after = begin + (self.server.cut_after or len(content)), 0
            self.wfile.write(content[begin:end])

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server(("127.0.0.1", 0), Handler)
    running.files, running.log, running.statuses = {"/data.bin": CONTENT}, [], []
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def address(server, path="/data.bin"):
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_file_arrives_with_progress_and_checksum(server, tmp_path):
    seen = []
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    target = fetch(address(server), tmp_path / "a" / "b.bin", checksum=checksum, on_progress=lambda *x: seen.append(x))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(target.parent.iterdir()) == [target]


def test_a_broken_connection_is_resumed(server, tmp_path):
    server.cut_after = 300_000
    assert fetch(address(server), tmp_path / "x").read_bytes() == CONTENT
    assert server.log == [("/data.bin", ""), ("/data.bin", "bytes=300000-")]


def test_an_earlier_part_is_continued(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT[:1000])
    checksum = f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"
    assert fetch(address(server), tmp_path / "x", checksum=checksum).read_bytes() == CONTENT
    assert server.log == [("/data.bin", "bytes=1000-")]


def test_a_part_longer_than_the_file_starts_over(server, tmp_path):
    (tmp_path / "x.part").write_bytes(CONTENT + b"more")
    assert fetch(address(server), tmp_path / "x").read_bytes() == CONTENT


def test_a_wrong_checksum_or_a_page_in_place_of_a_file_leaves_nothing(server, tmp_path):
    with pytest.raises(CorruptFile, match="expected is 0000"):
        fetch(address(server), tmp_path / "x", checksum="sha256:" + "0" * 64)
    assert list(tmp_path.iterdir()) == []
    server.files["/data.bin"] = b"\n<!DOCTYPE html><html>Quota exceeded</html>"
    with pytest.raises(CorruptFile, match="HTML page"):
        fetch(address(server), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_digest_that_a_hub_announces_is_checked(server, tmp_path):
    server.announced = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(address(server, "/moved/data.bin"), tmp_path / "x").read_bytes() == CONTENT
    server.announced = "f" * 64
    with pytest.raises(CorruptFile, match="ffff"):
        fetch(address(server, "/moved/data.bin"), tmp_path / "y")


def test_a_busy_server_is_asked_again_a_missing_file_is_not(server, tmp_path):
    server.statuses = [503, 503]
    assert fetch(address(server), tmp_path / "x").read_bytes() == CONTENT
    server.log.clear()
    with pytest.raises(MissingPrerequisite, match="404"):
        fetch(address(server, "/nothing"), tmp_path / "y")
    assert len(server.log) == 1


def test_an_unreachable_server_and_what_is_no_web_address(tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with pytest.raises(MissingPrerequisite, match="cannot be fetched") as caught:
        fetch("http://127.0.0.1:9/x", tmp_path / "x")
    assert str(tmp_path / "x") in caught.value.hint
    with pytest.raises(MissingPrerequisite, match="not a web address"):
        fetch("file:///etc/passwd", tmp_path / "x")


def test_a_disk_that_is_too_small_is_noticed_first(server, tmp_path):
    with pytest.raises(MissingPrerequisite, match="GB left"):
        fetch(address(server), tmp_path / "x", size=10**18)
    assert server.log == []
