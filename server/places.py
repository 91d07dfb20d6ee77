"""Where the records of a served folder are: in its own database, or in the one that it names."""

from pathlib import Path

from kbdfl.server.postgres.address import Address
from kbdfl.server.postgres.records import PostgresRecords
from kbdfl.server.records import Records, SqliteRecords


def records_of(folder: Path) -> Records:
    """Those of a folder that is served, or will be."""
    address = Address.of_folder(folder)
    return SqliteRecords(folder) if address is None else PostgresRecords(address)


def existing_records(folder: Path) -> Records:
    """Those of a folder that was served before; raises DataError if it was not."""
    address = Address.of_folder(folder)
    return SqliteRecords.existing(folder) if address is None else PostgresRecords(address)
