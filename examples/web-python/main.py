"""A page, a greeting as JSON, and nothing but the standard library."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = """<!doctype html>
<title>web-python</title>
<h1>It runs</h1>
<p>Ask for a greeting: <a href="hello?name=Alice">hello?name=Alice</a></p>
"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            self.answer(200, "text/html; charset=utf-8", PAGE)
        elif url.path == "/hello":
            name = parse_qs(url.query).get("name", ["World"])[0]
            self.answer(200, "application/json", json.dumps({"msg": f"Hello {name}"}))
        else:
            self.answer(404, "text/plain; charset=utf-8", "not found\n")

    do_HEAD = do_GET

    def answer(self, status, content_type, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 0))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"web-python listens on http://127.0.0.1:{server.server_port}", flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    main()
