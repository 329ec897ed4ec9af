"""What a watched folder has had scored: an index of its results on disk, not in memory.

The results files are the truth. The index says which file of the folder was scored in which state,
and up to which line of the results it has read them, so that a start reads only what came after.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fsad_edge.serve.result_lines import Mark

log = logging.getLogger("fsad_edge.serve")

#: Files that have left the folder and are still remembered, so that one that comes back is known.
KEPT_GONE = 100_000

#: Names that are looked up at once.
CHUNK = 500

SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    number INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    written TEXT NOT NULL,
    changed TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    own INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class FileVersion(NamedTuple):
    """A file as its folder lists it; a rewritten file is another version.

    Attributes:
        written: size and time of the last write.
        changed: inode and the time of the last change of any kind, which no program can set back.
    """

    name: str
    size: int
    mtime_ns: int
    written: str
    changed: str

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> FileVersion:
        """The version that ``os.stat`` shows."""
        written = written_key(found.st_size, found.st_mtime_ns)
        changed = f"{found.st_ctime_ns} {found.st_ino}"
        return cls(name, found.st_size, found.st_mtime_ns, written, changed)

    @property
    def coarse(self) -> bool:
        """Whether the clock of the file system steps by 10 ms and more, as that of FAT (2 s)."""
        return int(self.changed.split()[0]) % 10_000_000 == 0


def written_key(size: int, mtime_ns: int) -> str:
    """The text under which the index knows a size and a time."""
    return f"{size} {mtime_ns}"


class SeenFile(NamedTuple):
    """A file that was scored.

    Attributes:
        written, changed: as of :class:`FileVersion`; ``changed`` is empty where only the content
            can tell whether the file is still the same.
        sha256: of its content; empty where it could not be read.
        own: it is a picture that this project drew, and was not scored.
    """

    written: str
    changed: str
    sha256: str
    own: bool = False

    def is_same(self, file: FileVersion) -> bool:
        """Whether the file was not touched since."""
        return self.written == file.written and self.changed == file.changed

    def may_be(self, file: FileVersion) -> bool:
        """Whether it is the same image where its content is the same."""
        return self.written == file.written and bool(self.sha256)


class WatchIndex:
    """The index of one watched folder. For one thread, and one process at a time.

    Rows are on disk 5 s after they were added at the latest; what a crash loses is read again from
    the results files.

    Args:
        path: the file; a damaged one is replaced by an empty one.

    Raises:
        OSError, sqlite3.Error: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = self._open()
        self.identity = self._stat()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # no room, no permission
                raise
            log.warning("%s is damaged (%s), and is made again from the results.", self.path, error)
            self.path.unlink()
            self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # Network shares have no locks that can be relied on; the watch holds one of its own.
        database = sqlite3.connect(f"file:{quote(str(self.path))}?nolock=1", uri=True)
        try:
            database.executescript(SCHEMA)
            database.execute("SELECT max(number) FROM seen").fetchone()
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _stat(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    @property
    def replaced(self) -> bool:
        """Whether another file, or none, is at the path now: its disk was mounted or unmounted."""
        return self._stat() != self.identity

    def look_up(self, names: Sequence[str]) -> dict[str, SeenFile]:
        """The files among ``names`` that are known; at most ``CHUNK`` names."""
        marks = ",".join("?" * len(names))
        rows = self._database.execute(
            f"SELECT name, written, changed, sha256, own FROM seen WHERE name IN ({marks})",
            [os.fsencode(name) for name in names],
        )
        return {
            os.fsdecode(name): SeenFile(written, changed, digest, bool(own))
            for name, written, changed, digest, own in rows
        }

    def add(self, name: str, seen: SeenFile) -> None:
        """Remember a file, in place of an older version of it."""
        self._database.execute(
            "INSERT OR REPLACE INTO seen (name, written, changed, sha256, own) VALUES (?,?,?,?,?)",
            (os.fsencode(name), *seen),
        )

    def commit(self, mark: Mark | None) -> None:
        """Write to the disk that the results up to a line are in the index."""
        if mark is not None:
            self.set("mark", f"{mark.start} {mark.end} {mark.sha256}")
        self._database.commit()

    @property
    def mark(self) -> Mark | None:
        """The last line of the results that is in the index."""
        found = self.get("mark")
        if found is None:
            return None
        start, end, digest = found.split()
        return Mark(int(start), int(end), digest)

    def get(self, key: str) -> str | None:
        """A value that was set; None where there is none."""
        row = self._database.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set(self, key: str, value: str) -> None:
        """Keep a value."""
        if self.get(key) != value:
            self._set(key, value)

    def _set(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))

    @property
    def has_many(self) -> bool:
        """Whether so many files were added since the last :meth:`prune` that it is time for one."""
        return self._newest() - int(self.get("pruned") or 0) > KEPT_GONE

    def prune(self, names: Iterable[str]) -> None:
        """Forget files that are not among ``names``, but for the ``KEPT_GONE`` newest.

        Args:
            names: all names that the folder holds now.
        """
        newest = self._newest()
        with contextlib.closing(self._database.cursor()) as cursor:
            cursor.execute("CREATE TEMP TABLE present (name BLOB PRIMARY KEY) WITHOUT ROWID")
            cursor.executemany(
                "INSERT OR IGNORE INTO present VALUES (?)", ((os.fsencode(one),) for one in names)
            )
            cursor.execute(
                "DELETE FROM seen WHERE number <= coalesce((SELECT number FROM seen WHERE name NOT "
                "IN (SELECT name FROM present) ORDER BY number DESC LIMIT 1 OFFSET ?), 0) "
                "AND name NOT IN (SELECT name FROM present)",
                (KEPT_GONE,),
            )
            cursor.execute("DROP TABLE present")
        self._set("pruned", str(newest))

    def _newest(self) -> int:
        return int(self._database.execute("SELECT max(number) FROM seen").fetchone()[0] or 0)

    def close(self) -> None:
        """Close the index; what was not committed is forgotten."""
        self._database.close()
