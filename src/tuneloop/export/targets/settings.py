"""What a target needs to know beyond the form itself: names, sizes, where the database is. Plain values, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from tuneloop import __version__
from tuneloop.errors import UsageError, nearest

DNS_LABEL_CHARS = 63
SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # what `serve.models.name` takes
NO_CONTROL = re.compile(r"[^\x00-\x1f\x7f\x85\u2028\u2029]*")


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """How a form is deployed. Every field has a default that works for a small model; `of` reads `key=value` words.

    `name` is anything a person would call the model; what a target needs (a DNS label, a file name) is made of it.
    `package` is what pip installs in an image: a requirement, a URL, or a wheel's path in the build folder.
    `database_url` (PostgreSQL, without password) is needed where several copies share keys and logs; the password comes
    as PGPASSWORD from the secret `secret`. `memory_gib` and `cpus` are what one copy asks for, `gpus` how many GPUs.
    `program` is tuneloop's path for systemd. `repo` is the Hub's, private unless `public`.
    """

    name: str = "tuneloop"
    image: str = ""
    package: str = f"tuneloop[postgres]=={__version__}"
    python_version: str = "3.12"
    port: int = 8000
    cpus: float = 2.0
    memory_gib: float = 4.0
    gpus: int = 0
    gpu_type: str = "L4"
    replicas: int = 2
    max_replicas: int = 10
    database_url: str = ""
    secret: str = ""
    program: str = "/opt/tuneloop/bin/tuneloop"
    max_tokens: int = 4096
    repo: str = ""
    public: bool = False

    def __post_init__(self) -> None:
        for name, is_right, wanted in self._rules():
            if not is_right:
                raise UsageError(
                    f"{getattr(self, name)!r} is not {wanted}", where=f"target setting {name}", hint=f"Give {wanted}."
                )
        _check_database(self.database_url)

    @classmethod
    def of(cls, given: Mapping[str, str]) -> TargetSettings:
        """Return the settings with these words read into them.

        Raises: UsageError: a key is unknown, or a value cannot be read or used.
        """
        kinds = {field.name: type(field.default) for field in fields(cls)}
        read: dict[str, Any] = {}
        for key, word in given.items():
            if key not in kinds:
                hint = f"There are: {', '.join(kinds)}.{nearest(key, list(kinds))}"
                raise UsageError(f"targets have no setting {key!r}", where=f"{key}={word}", hint=hint)
            read[key] = _read(key, word, kinds[key])
        return replace(cls(), **read)

    @property
    def slug(self) -> str:
        """The name as a DNS label, which no two names share."""
        return slug(self.name)

    @property
    def served_name(self) -> str:
        """The name under which requests find the model."""
        return self.name if SERVED_NAME.fullmatch(self.name) else self.slug

    @property
    def secret_name(self) -> str:
        """The Kubernetes or Modal secret that holds the environment."""
        return self.secret or f"{self.slug}-env"

    def _rules(self) -> list[tuple[str, bool, str]]:
        one_line = [(name, bool(NO_CONTROL.fullmatch(getattr(self, name))), "one line of text") for name in _texts()]
        return [
            *one_line,
            ("name", bool(self.name.strip()), "a name"),
            ("package", bool(self.package.strip()), "what pip can install"),
            ("python_version", bool(re.fullmatch(r"3\.\d{1,2}", self.python_version)), "a version such as 3.12"),
            ("port", 1 <= self.port <= 65_535, "a port from 1 to 65535"),
            ("cpus", 0.05 <= self.cpus <= 1024, "a number of CPUs"),
            ("memory_gib", 0.1 <= self.memory_gib <= 65_536, "a number of gibibytes"),
            ("gpus", 0 <= self.gpus <= 64, "a number of GPUs"),
            ("gpu_type", bool(re.fullmatch(r"[A-Za-z0-9-]{1,40}", self.gpu_type)), "the name of a GPU, as L4"),
            ("replicas", 1 <= self.replicas <= 1000, "a number of copies from 1 to 1000"),
            ("max_replicas", self.replicas <= self.max_replicas <= 1000, "at least as many copies as replicas"),
            ("secret", self.secret == "" or self.secret == slug(self.secret), "a name of a-z, 0-9 and -"),
            ("program", self.program.startswith("/"), "an absolute path"),
            ("max_tokens", self.max_tokens >= 1, "a number of tokens"),
        ]


def slug(name: str) -> str:
    """Return a DNS label (RFC 1123: a-z, 0-9 and -, at most 63) made of any name; names that need changes get a hash,
    so that two of them stay two, and room is left for a suffix.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(plain) <= DNS_LABEL_CHARS - 16 and plain[:1].isalpha():
        return plain
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{('m-' + plain if not plain[:1].isalpha() else plain)[: DNS_LABEL_CHARS - 25].strip('-')}-{digest}"


def _texts() -> list[str]:
    return [field.name for field in fields(TargetSettings) if isinstance(field.default, str)]


def _read(key: str, word: str, kind: type) -> Any:
    readers: dict[type, Callable[[str], Any]] = {int: int, float: float, str: str, bool: _boolean}
    try:
        return readers[kind](word)
    except ValueError as error:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise UsageError(f"{word!r} is not {wanted}", where=f"{key}={word}", hint=f"Give {wanted}.") from error


def _boolean(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError(word)
    return word.lower() == "true"


def _check_database(url: str) -> None:
    """Refuse a password, which would stand in files, and what is no PostgreSQL address."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("postgresql", "postgres") and (parts.port or 1) > 0
        has_password = parts.password is not None
    except ValueError:  # a port that is no number, say
        has_password, is_right = False, False
    if has_password:
        raise UsageError(
            "the address has a password in it",
            where="target setting database_url",
            hint="Leave it out, and put PGPASSWORD into the secret that the deployment names.",
        )
    if not is_right:
        hint = "Give postgresql://USER@HOST/DATABASE."
        raise UsageError("this is no PostgreSQL address", where="target setting database_url", hint=hint)
