"""Serves the current folder over TLS: https.py CERTIFICATE KEY. Prints the port.

/moved/... redirects to /...; /bare/... is answered without an ETag or a time. Every request is logged to ../requests.
"""

import http.server
import os
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        with open("../requests", "a", encoding="utf-8") as log:
            log.write(f"{self.command} {self.path} {self.headers.get('authorization', '-')}\n")
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("location", self.path.removeprefix("/moved"))
            return self.end_headers()
        path = self.path.removeprefix("/bare").lstrip("/")
        if not os.path.isfile(path):
            self.send_response(404)
            return self.end_headers()
        with open(path, "rb") as file:
            content = file.read()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        if not self.path.startswith("/bare/"):
            self.send_header("etag", f'"{content.hex()}"')
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
