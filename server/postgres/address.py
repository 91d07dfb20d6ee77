"""Where a server's PostgreSQL is, and what in it is whose: schemas of one database.

`kbdfl` holds what is the server's, `kbdfl_NAME` the rounds of the task NAME. A password never stands in an address: it
is PostgreSQL's own business (PGPASSWORD, ~/.pgpass).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kbdfl.errors import ConfigError, DataError
from kbdfl.params import write_atomically
from kbdfl.server.database import DATABASE

SCHEMES = ("postgresql", "postgres")
RECORDS = "kbdfl"  # the schema
ALONE = "default"  # the name of a task that has none
LONGEST = 63  # bytes of a name in PostgreSQL
POINTER = "postgres.json"  # in a folder whose task is kept elsewhere


@dataclass(frozen=True, slots=True)
class Address:
    """A database, as postgresql://user@host:port/name or with a socket's folder as ?host=, and a task in it."""

    url: str
    task: str = ALONE

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            password = parts.password is not None or "password" in parse_qs(parts.query)
        except ValueError:
            raise ConfigError("database must be an address like postgresql://user@host/name") from None
        if parts.scheme not in SCHEMES:
            raise ConfigError("database must be an address like postgresql://user@host/name")
        if password:
            raise ConfigError(
                "database must not hold a password; PostgreSQL takes it from PGPASSWORD or ~/.pgpass"
            )
        if not self.task or len(self.schema.encode()) > LONGEST or "\0" in self.task:
            raise ConfigError(
                f"a task in PostgreSQL needs a name of 1 to {LONGEST - len(RECORDS) - 1} bytes, got {self.task!r}"
            )

    @property
    def schema(self) -> str:
        """Of the task's rounds."""
        return f"{RECORDS}_{self.task}"

    @classmethod
    def of_folder(cls, folder: Path) -> "Address | None":
        """Where a folder says that its task is kept; None if it is kept in the folder."""
        path = Path(folder) / POINTER
        try:
            document = json.loads(path.read_text("utf-8"))
            return cls(document["url"], document["task"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{path} does not say which database a server uses") from None

    def check(self, folder: Path) -> None:
        """Raise ConfigError if a folder holds a task itself, or says that it is kept somewhere else."""
        if (folder / DATABASE).exists():
            raise ConfigError(f"{folder} keeps a task in {DATABASE}; choose another folder for PostgreSQL")
        kept = self.of_folder(folder)
        if kept not in (None, self):
            raise ConfigError(
                f"{folder} belongs to task {kept.task!r} of another database; choose another folder"
            )

    def keep(self, folder: Path) -> None:
        """Say so in a folder. Raises what `check` raises."""
        self.check(folder)
        if self.of_folder(folder) is None:
            text = json.dumps({"url": self.url, "task": self.task})
            write_atomically(folder / POINTER, text.encode())
