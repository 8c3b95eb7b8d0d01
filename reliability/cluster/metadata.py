"""Answers as the metadata service of a spot instance on AWS that will be taken back: ``... metadata PORT``."""

import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives a token, and with it the notice."""

    def do_PUT(self) -> None:
        """The token of version 2."""
        self._answer(200 if self.path == "/latest/api/token" else 404, b"a-token")

    def do_GET(self) -> None:
        """The notice, for whoever has the token."""
        noticed = self.path == "/latest/meta-data/spot/instance-action"
        allowed = self.headers["X-aws-ec2-metadata-token"] == "a-token"
        self._answer((200 if allowed else 401) if noticed else 404, b'{"action": "terminate"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
