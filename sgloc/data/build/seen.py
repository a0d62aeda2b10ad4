"""Finding key_ids that occur twice, exactly and in bounded memory."""

import sqlite3


class SeenKeys:
    """A set of key_ids, in a temporary database that is on the disk once it is large."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("")
        # What is lost with the process need not be restored.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (key_id INTEGER PRIMARY KEY)")

    def add(self, key_id: int) -> bool:
        """Add a key_id below 2**64; whether it is new."""
        # SQLite's integers are signed.
        signed = key_id - 2**63
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", [signed]).rowcount == 1

    def close(self) -> None:
        """Free the set's memory and its file."""
        self._database.close()
