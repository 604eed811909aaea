"""Answers HTTP on a socket of the file system."""

import http.server
import socketserver
import sys


class Answer(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "a socket"

    def do_GET(self):
        body = f"python {sys.version_info.major} answers\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


socketserver.UnixStreamServer("/srv/socket", Answer).serve_forever()
