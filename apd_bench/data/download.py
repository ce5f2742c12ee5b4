"""Fetching files: resumable, with progress, checked before they count. Torch-free; nothing here runs unless asked.

A download goes to `NAME.part` and is renamed only after its length and checksum agree, so a file of the final name is
always whole. An HTML page in place of data (a refused Google Drive or expired link) is recognised and refused.
"""

import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.files import file_digest

OnBytes = Callable[[int, int], None]  # told how many bytes have come, and of how many
CHUNK = 1 << 20
ATTEMPTS = 4
TIMEOUT = 60
_AGENT = "apd-bench (dataset preparation)"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps the checksum that model hubs announce on the way (`X-Linked-ETag`)."""

    def __init__(self) -> None:
        self.announced = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str) -> Any:
        """Notes a SHA-256 in the redirect's headers."""
        tag = (headers.get("X-Linked-ETag") or "").strip('"')
        if len(tag) == 64:
            self.announced = f"sha256:{tag}"
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, target: Path, *, checksum: str = "", size: int = 0, on_progress: OnBytes | None = None) -> Path:
    """Downloads `url` to `target`, going on where an earlier attempt stopped; returns `target`.

    `checksum` is "sha256:..." or "md5:..."; empty means that the server's own announcement is used where it makes one.
    Raises MissingPrerequisite when the server cannot be reached or the disk is too small, CorruptFile when what came
    is not what was expected.
    """
    if not url.startswith(("https://", "http://")):
        raise MissingPrerequisite(f"'{url}' is not a web address.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    needed = size - (part.stat().st_size if part.is_file() else 0)
    if needed > (free := shutil.disk_usage(target.parent).free):
        raise MissingPrerequisite(
            f"{target.name} needs {needed / 1e9:.1f} GB, {target.parent} has {free / 1e9:.1f} GB left.",
            hint="Free some space, or set APD_BENCH_DATA to a larger disk.",
        )
    failure = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2**attempt)
        try:
            announced = _transfer(url, part, on_progress)
        except urllib.error.HTTPError as error:
            error.close()
            failure = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            failure = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            _verify(part, url, checksum or announced)
            part.replace(target)
            return target
    raise MissingPrerequisite(
        f"{url} cannot be fetched: {failure}.",
        hint=f"Try again (what has arrived is kept), or download it by hand to {target}.",
    )


def _transfer(url: str, part: Path, on_progress: OnBytes | None) -> str:
    """One attempt; returns the checksum that the server announced, if any."""
    begin = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": _AGENT} | ({"Range": f"bytes={begin}-"} if begin else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the scheme was checked)
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        response: HTTPResponse = opener.open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begin:  # everything is there already, or the file has changed: start over
            error.close()
            part.unlink()
            return _transfer(url, part, on_progress)
        raise
    with response:
        if begin and response.status != 206:
            begin = 0
        expected = begin + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if begin else "wb") as out:
            done = begin
            while block := response.read(CHUNK):
                out.write(block)
                done += len(block)
                if on_progress is not None:
                    on_progress(done, expected)
        if response.headers.get("Content-Length") and done != expected:
            raise ConnectionError(f"only {done} of {expected} bytes arrived")
    return redirects.announced


def _verify(part: Path, url: str, checksum: str) -> None:
    with part.open("rb") as handle:
        start = handle.read(512).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        part.unlink()
        raise CorruptFile(
            f"{url} gave an HTML page instead of the file.",
            hint="Open the address in a browser and download it by hand.",
        )
    kind, _, wanted = checksum.partition(":")
    if wanted and (found := file_digest(part, kind)) != wanted:
        part.unlink()
        raise CorruptFile(
            f"{url} arrived with {kind} {found}, expected is {wanted}.",
            hint="Run the command again; if it stays so, the publisher has changed the file.",
        )
