"""Folders of Hugging Face `datasets` (`save_to_disk`, or Parquet files), through pyarrow: extra `[datasets]`.

All splits are read, in the order of their paths, batch by batch. A record is named by its row, counted over all files.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from kbdfl.device_sim.typing.imports.fields import Columns, message_of, order_of
from kbdfl.device_sim.typing.imports.items import Items, Malformed, Options
from kbdfl.errors import ConfigError, DataError

SUFFIXES = (".arrow", ".parquet")
BATCH = 2048  # rows of Parquet at a time; Arrow files have batches of their own


def data_files(path: Path) -> list[Path]:
    """The Arrow and Parquet files of a folder, or the file itself; what `datasets` merely cached is none of them."""
    if path.is_file():
        return [path]
    found = (file for suffix in SUFFIXES for file in path.rglob("*" + suffix))
    return sorted(file for file in found if file.is_file() and not file.name.startswith("cache-"))


def read_folder(path: Path, options: Options) -> Items:
    """Yield the messages. Raises ConfigError without pyarrow or a column of text, DataError without a file."""
    try:
        import pyarrow
    except ImportError:
        raise ConfigError('a datasets folder needs pyarrow: pip install "kbdfl[datasets]"') from None
    files = data_files(path)
    if not files:
        raise DataError(f"{path} holds no Arrow and no Parquet file")
    order, note = order_of(_times(files, options, pyarrow.ArrowException), options)
    if note:
        yield note
    row = 0
    for file in files:
        try:
            for columns, records in _batches(file, options):
                for record in records:
                    row += 1
                    yield message_of(record, columns, options, line=row, order=order)
        except (pyarrow.ArrowException, OSError, ValueError):  # ValueError: text that is not UTF-8
            yield Malformed(row + 1, "an Arrow or Parquet file is broken from here on")


def _times(files: list[Path], options: Options, arrow_error: type[Exception]) -> Iterator[Any]:
    """What the files' columns of time hold, as far as it can be read."""
    for file in files:
        with suppress(arrow_error, OSError, ValueError):  # named when the messages are read
            for columns, records in _batches(file, options):
                if columns.time is not None:
                    yield from (record[columns.time] for record in records)


def _batches(file: Path, options: Options) -> Iterator[tuple[Columns, list[dict[str, Any]]]]:
    import pyarrow
    from pyarrow import parquet

    # OSFile and not a memory map: pages of a map would count as this process's memory
    with pyarrow.OSFile(str(file)) as source:
        if file.suffix == ".parquet":
            opened = parquet.ParquetFile(source)
            columns = Columns.among(opened.schema_arrow.names, options, what="the dataset")
            batches = opened.iter_batches(BATCH, columns=_names(columns))
        else:
            stream = source.read(6) != b"ARROW1"
            source.seek(0)
            opened = pyarrow.ipc.open_stream(source) if stream else pyarrow.ipc.open_file(source)
            columns = Columns.among(opened.schema.names, options, what="the dataset")
            batches = opened if stream else map(opened.get_batch, range(opened.num_record_batches))
        for batch in batches:
            for begin in range(0, batch.num_rows, BATCH):
                yield columns, batch.select(_names(columns)).slice(begin, BATCH).to_pylist()


def _names(columns: Columns) -> list[str]:
    return list(
        dict.fromkeys(name for name in (columns.text, columns.user, columns.time) if name is not None)
    )
