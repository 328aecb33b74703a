"""The llama.cpp library, as llama-cpp-python binds it: imported when needed, quiet, and explained when missing."""

from __future__ import annotations

import ctypes
from collections import deque
from functools import cache
from typing import Any

from tuneloop.errors import ModelError

WARNING, ERROR = 3, 4  # GGML_LOG_LEVEL_WARN and _ERROR in ggml.h
_complaints: deque[str] = deque(maxlen=20)


@cache
def llama_library() -> Any:
    """Return the module `llama_cpp`, with its log kept here rather than on stderr.

    Raises: ModelError: it is not installed, or its library does not load on this machine.
    """
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(
            f"llama.cpp is not available here ({error})",
            where="llama-cpp-python",
            hint="Install it: pip install 'tuneloop[llamacpp]'. It compiles for some minutes and needs a C++ compiler.",
        ) from error
    library: Any = llama_cpp
    library.llama_log_set(_log_callback(library), None)
    library.llama_backend_init()
    return library


def last_complaint() -> str:
    """Return what the library said last that was a warning or an error, as one line; empty where it said nothing."""
    return _complaints[-1] if _complaints else ""


@cache
def _log_callback(library: Any) -> Any:
    """Return the C callback; the cache keeps it alive for as long as the library may call it."""

    def note(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (WARNING, ERROR) and line:
            _complaints.append(line)

    return library.llama_log_callback(note)
