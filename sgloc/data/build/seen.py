"""Exact detection of duplicate key_ids in bounded memory."""

import sqlite3


class SeenKeys:
    """A set of key_ids in a temporary database, which spills to disk when it grows large."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        # No journal, since the database need not survive a crash.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (key_id INTEGER PRIMARY KEY)")

    def add(self, key_id: int) -> bool:
        """Add a key_id below 2**64; return whether it is new."""
        # SQLite's integers are signed.
        signed = key_id - 2**63
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [signed]).rowcount == 1

    def close(self) -> None:
        """Release the memory and the temporary file."""
        self._database.close()
