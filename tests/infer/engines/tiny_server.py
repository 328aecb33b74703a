"""A program that serves /health on loopback and behaves as told: `python -I -S tiny_server.py PORT FOLDER BEHAVIOUR…`.

It notes each start in FOLDER/starts as `pid port key`, and the process ids of children in FOLDER/children.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[2])
BEHAVIOUR = set(sys.argv[3:])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        key = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.send_response(200 if key == os.environ["TINY_KEY"] and "never-ready" not in BEHAVIOUR else 503)
        self.send_header("content-length", "0")
        self.end_headers()
        if self.path == "/die":
            os._exit(3)

    def log_message(self, *arguments: object) -> None:
        return


def note(name: str, line: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(line + "\n")


note("starts", f"{os.getpid()} {sys.argv[1]} {os.environ['TINY_KEY']}")
sys.stderr.write(f"listening on {sys.argv[1]} with {os.environ['TINY_KEY']}\n")
starts = len((FOLDER / "starts").read_text().splitlines())
if "dies" in BEHAVIOUR or ("dies-again" in BEHAVIOUR and starts > 1):
    sys.stderr.write("no memory left for the model\n")
    sys.exit(7)
if "deaf" in BEHAVIOUR:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "has-children" in BEHAVIOUR:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", ignoring])
    note("children", str(child.pid))
if "slow" in BEHAVIOUR:
    time.sleep(0.5)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
