"""A web server on this machine for the tests of downloads, with the faults of real ones."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Shelf(ThreadingHTTPServer):
    """Files by name, and how badly they are served.

    `cuts` are the bytes after which the connection is dropped, one per request; `stall` and
    `pause` are an event and a byte count: the server falls silent there until the event is set.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.ranges, self.length, self.status = {}, True, True, []
        self.cuts, self.stall_at, self.trickle, self.at_stall = [], None, 0, lambda: None
        self.go_on = threading.Event()
        self.asked, self.sent = [], []

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        pass  # a client that has gone away is part of the tests


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        shelf, wanted = self.server, self.headers["Range"]
        shelf.asked.append(wanted)
        data = shelf.files.get(self.path[1:])
        status = shelf.status.pop(0) if shelf.status else 200 if data is not None else 404
        if status is None:
            return self.connection.close()
        start = int(wanted[6:-1]) if wanted and shelf.ranges and status == 200 else 0
        if status == 200 and 0 < len(data) <= start:
            status = 416
        if status != 200:
            return self.send_error(status)
        self.send_response(206 if start else 200)
        if shelf.length:
            self.send_header("Content-Length", len(data) - start)
        self.end_headers()
        self.send(data[start:])

    def send(self, data):
        shelf = self.server
        data = data[: shelf.cuts.pop(0)] if shelf.cuts else data
        size = shelf.trickle or shelf.stall_at or max(len(data), 1)
        for i in range(0, len(data), size):
            self.wfile.write(data[i : i + size])
            self.wfile.flush()
            shelf.sent.append(len(data[i : i + size]))
            if shelf.trickle:
                time.sleep(0.05)
            elif shelf.stall_at:
                shelf.at_stall()
                shelf.go_on.wait(10)

    def log_message(self, *_):
        pass


@contextmanager
def shelf():
    server = Shelf()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("no_proxy", "NO_PROXY"):
                patch.setenv(name, "127.0.0.1")
            yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
