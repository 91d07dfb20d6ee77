"""Frozen dataclasses to and from TOML: a configuration file has exactly the fields of the code, no others."""

import tomllib
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_type_hints

import tomli_w

from kbdfl.errors import ConfigError

Config = TypeVar("Config")


def from_table(cls: type[Config], table: Any, *, where: str) -> Config:
    """An instance of the dataclass `cls` from a TOML table; missing fields take their defaults.

    Raises ConfigError for an unknown field or a value of another type, naming `where`.
    """
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, got {table!r}"[:200])
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(table.keys() - set(names))
    if unknown:
        raise ConfigError(f"{where} has no field {unknown[0]!r:.80}; its fields are {', '.join(names)}")
    values = {}
    for name, value in table.items():
        wanted = get_args(hints[name]) if isinstance(hints[name], UnionType) else (hints[name],)
        accepted = tuple(wanted) + ((int,) if float in wanted else ())
        if isinstance(value, bool) != (bool in wanted) or not isinstance(value, accepted):
            expected = " or ".join(kind.__name__ for kind in wanted if kind is not type(None))
            raise ConfigError(f"{where}.{name} must be {expected}, got {value!r}"[:200])
        values[name] = value
        if float in wanted and isinstance(value, int):
            try:
                values[name] = float(value)
            except OverflowError:
                raise ConfigError(f"{where}.{name} must be float, got an integer beyond its range") from None
    return cls(**values)


def to_table(config: Any) -> dict[str, Any]:
    """A dataclass as a TOML table; fields that are None are left out."""
    return {name: value for name, value in asdict(config).items() if value is not None}


def read_toml(path: Path) -> dict[str, Any]:
    """The document at `path`. Raises ConfigError when it is missing or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # not TOML, not UTF-8, a number of 5,000 digits, a deep nest
        raise ConfigError(f"{path} is not TOML: {' '.join(str(error).split())}"[:200]) from None


def write_toml(document: dict[str, Any]) -> str:
    """The text of a TOML document."""
    return tomli_w.dumps(document)
