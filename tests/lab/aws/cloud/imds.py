"""An instance's metadata service, version 2 alone: no answer without a token that was asked for by PUT."""

import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer

from . import clock

TOKEN = "/latest/api/token"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text="", ttl=None):
        body = text.encode()
        self.send_response(status)
        if ttl is not None:
            self.send_header("X-aws-ec2-metadata-token-ttl-seconds", ttl)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self):
        if self.path != TOKEN:
            return self.answer(403)
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
            return self.answer(400)
        token = secrets.token_urlsafe(32)
        self.server.tokens[token] = time.monotonic() + int(seconds)
        self.answer(200, token, seconds)

    def do_GET(self):
        token = self.headers.get("X-aws-ec2-metadata-token")
        if self.server.tokens.get(token, 0) < time.monotonic():
            return self.answer(401)
        with clock.LOCK:
            found = self.server.instance.metadata(self.path.removeprefix("/latest/").rstrip("/"))
            self.server.instance.account.changed()
        if found is None:
            return self.answer(404)
        self.answer(200, found if isinstance(found, str) else json.dumps(found))


class Metadata:
    """The service of one instance, at its own address."""

    def __init__(self, instance, address):
        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.server.daemon_threads = True
        self.server.tokens = {}
        self.server.instance = instance
        self.url = f"http://{address}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def end(self):
        # It waits for the serving thread, which may wait for the world's lock.
        threading.Thread(target=self._close, daemon=True).start()

    def _close(self):
        self.server.shutdown()
        self.server.server_close()
