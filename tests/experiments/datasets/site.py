"""A web site on this machine, with one file and the manners of many servers."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What it serves, how, and what it was asked.

    Attributes:
        content: the file, under every name.
        headers: what tells the file's version.
        ranges: whether it sends parts.
        careless: whether it sends parts of whatever it has, despite If-Range.
        shift: how many bytes too late its parts begin.
        cut: after how many bytes each answer breaks off; later ones do not.
        status: of all answers; None for those that fit.
        held: the first answer waits for it.
        asked: the headers of every request.
        sent: how many bytes of the file went out with each answer.
        reached: set by the first request.
        address: where it is.
    """

    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    careless: bool = False
    shift: int = 0
    cut: list[int] = field(default_factory=list)
    status: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    asked: list[Message] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @contextmanager
    def running(self) -> Iterator["Site"]:
        self.held.set()
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self)) as http:
            thread = threading.Thread(target=http.serve_forever, args=(0.01,))
            thread.start()
            self.address = f"http://127.0.0.1:{http.server_port}"
            try:
                yield self
            finally:
                self.held.set()
                http.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        site, whole = self.site, len(self.site.content)
        site.asked.append(self.headers)
        site.reached.set()
        if len(site.asked) == 1:
            site.held.wait()
        start = self._start()
        if site.status is not None:
            self._answer(site.status, {}, b"no")
        elif start is None:
            self._send(200, {}, site.content)
        elif start >= whole:
            self._answer(416, {"Content-Range": f"bytes */{whole}"}, b"too far")
        else:
            start += site.shift
            told = {"Content-Range": f"bytes {start}-{whole - 1}/{whole}"}
            self._send(206, told, site.content[start:])

    def _start(self) -> int | None:
        """Where the wanted part begins; None if all is to be sent."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        changed = condition is not None and condition not in self.site.headers.values()
        if wanted is None or not self.site.ranges:
            return None
        return None if changed and not self.site.careless else int(wanted[1])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        end = self.site.cut.pop(0) if self.site.cut else len(body)
        self.site.sent.append(len(body[:end]))
        self._answer(status, {**self.site.headers, **headers}, body, end)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, end: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:end])

    def log_message(self, format: str, *args: object) -> None:
        del format, args
