"""Two servers of the hostile mesh: `board` shows the headers it was asked with, `vault` gives its treasure to whoever asks.

That not everybody may ask is the mesh's affair.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


class Board(BaseHTTPRequestHandler):
    """Shows what it hears."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(dict(self.headers.items())).encode()
        if len(sys.argv) > 1:
            body = Path(sys.argv[1]).read_bytes()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    # The second port is in no Service: nobody declared it, and it is guarded all the same.
    Thread(target=ThreadingHTTPServer(("0.0.0.0", 8081), Board).serve_forever, daemon=True).start()
    ThreadingHTTPServer(("0.0.0.0", 8080), Board).serve_forever()
