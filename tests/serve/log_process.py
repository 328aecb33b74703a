"""A process that logs answers to a store.

Usage: python log_process.py FOLDER NAME ROWS (close|leave|kill).

`kill` ends itself with SIGKILL while the database is locked and the log is closing; `leave` ends without closing it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from tests.serve.served import answer
from tuneloop.config.schema import StoreConfig
from tuneloop.serve.log_writer import StoreLog
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.store.database import open_database


def main(folder: Path, name: str, rows: int, end: str) -> None:
    database = open_database(StoreConfig(root=folder))
    log = StoreLog(database, RedactionPolicy(), folder / "spool", write_every_s=0.05)
    for number in range(rows):
        log.record([answer(f"{name}{number}", 0)])
    if end == "kill":
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    if end != "leave":
        log.close(60)
        database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
