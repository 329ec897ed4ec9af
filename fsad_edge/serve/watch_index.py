"""What a watched folder has had scored: an index of its results on disk, not in memory.

The results files are the truth. The index says which file of the folder was scored in which state,
and up to which line of the results it has read them, so that a start reads only what came after.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from fsad_edge.runtime.files import check_in_place, writing
from fsad_edge.serve.result_lines import Mark

log = logging.getLogger("fsad_edge.serve")

#: Files that have left the folder and are still remembered, so that one that comes back is known.
KEPT_GONE = 100_000

#: Names that are looked up at once.
CHUNK = 500

#: What SQLite says where the disk or the permissions are at fault, and not the file.
OUTER_FAULTS = ("full", "I/O error", "unable to open", "locked", "readonly")

#: `checked` is a CRC-32, so that a flipped bit on the disk decides nothing. That of a file is a
#: column that is added apart, and that of a state stands in another table: earlier versions, which
#: know neither, can go on with the file.
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
CREATE TABLE IF NOT EXISTS checks (key TEXT PRIMARY KEY, checked INTEGER NOT NULL);
"""

DAMAGED_ROW = sqlite3.DatabaseError("a row does not fit its checksum")


#: What stands in place of the time of change of what is no regular file, and of what cannot be
#: asked: a link that leads nowhere, a file on a share that is away.
SPECIAL, UNREACHABLE = "special", "unreachable"

#: The columns of a file, the last of which is its ``SeenAs``.
FILE = "name, written, changed, sha256, own"


class SeenAs(enum.IntEnum):
    """What became of a file."""

    SCORED = 0
    OWN = 1  # a picture that this project drew, which is not scored
    ERROR = 2


class FileVersion(NamedTuple):
    """A file as its folder lists it; a rewritten file is another version.

    Attributes:
        written: size and time of the last write.
        changed: inode and the time of the last change of any kind, which no program can set back.
        stamp: a number that is another one for another version, but for one case in 2**61.
        key: of the entry in its folder; 0 where none lists it.
    """

    name: str
    size: int
    mtime_ns: int
    written: str
    changed: str
    stamp: int
    key: int = 0

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> FileVersion:
        """The version that ``os.stat`` shows."""
        written = written_key(found.st_size, found.st_mtime_ns)
        changed = f"{found.st_ctime_ns} {found.st_ino}"
        return cls(name, found.st_size, found.st_mtime_ns, written, changed, stamp_of(found))

    @classmethod
    def special(cls, name: str, inode: int, is_reached: bool) -> FileVersion:
        """The one version of what is no regular file, or cannot be reached.

        The times of a folder or a pipe change although nothing about it does.
        """
        changed = f"{SPECIAL if is_reached else UNREACHABLE} {inode}"
        return cls(name, 0, 0, written_key(0, 0), changed, hash(changed))

    @property
    def is_special(self) -> bool:
        """Whether it is no regular file, or cannot be reached."""
        return self.is_unreachable or self.changed.startswith(SPECIAL)

    @property
    def is_unreachable(self) -> bool:
        """Whether the system could not tell what it is."""
        return self.changed.startswith(UNREACHABLE)

    @property
    def inode(self) -> str:
        """Its number in its file system."""
        return self.changed.split()[-1]

    @property
    def coarse(self) -> bool:
        """Whether the clock of the file system steps by 10 ms and more, as that of FAT (2 s)."""
        return not self.is_special and int(self.changed.split()[0]) % 10_000_000 == 0


def stamp_of(found: os.stat_result) -> int:
    """The stamp of the version that ``os.stat`` shows."""
    return hash((found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


def written_key(size: int, mtime_ns: int) -> str:
    """The text under which the index knows a size and a time."""
    return f"{size} {mtime_ns}"


class SeenFile(NamedTuple):
    """A file that was scored.

    Attributes:
        written, changed: as of :class:`FileVersion`; ``changed`` is empty where only the content
            can tell whether the file is still the same.
        sha256: of its content; empty where it could not be read.
        outcome: what became of it.
    """

    written: str
    changed: str
    sha256: str
    outcome: SeenAs = SeenAs.SCORED

    def is_same(self, file: FileVersion) -> bool:
        """Whether the file was not touched since."""
        return self.written == file.written and self.changed == file.changed

    def may_be(self, file: FileVersion) -> bool:
        """Whether it is the same image where its content is the same."""
        return self.written == file.written and bool(self.sha256)

    def may_have_grown(self, file: FileVersion) -> bool:
        """Whether a file that had an error is the same one, with more bytes at its end perhaps."""
        if self.outcome is not SeenAs.ERROR or file.size < self.size:
            return False
        if not self.changed:
            return bool(self.sha256)
        return self.changed.split()[-1] == file.inode

    @property
    def size(self) -> int:
        """Its bytes."""
        return int(self.written.split()[0])


def _checksum(*row: Any) -> int:
    return zlib.crc32(repr(row).encode("utf-8", "surrogateescape"))


class WatchIndex:
    """The index of one watched folder. For one thread, and one process at a time.

    Rows are on disk 5 s after they were added at the latest; what a crash loses is read again from
    the results files.

    Args:
        path: the file; a damaged one is replaced by an empty one.

    Raises:
        InputError: it is a link, a device or a pipe, to which nothing is written.
        OSError, sqlite3.Error: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = self._open()
        self._database.execute(
            "CREATE TEMP TABLE told (name BLOB, sha256 TEXT, PRIMARY KEY (name, sha256)) "
            "WITHOUT ROWID"
        )
        self.identity = self._stat()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.Error as error:
            if not self.is_damage(error):
                raise
            log.warning("%s is damaged (%s), and is made again from the results.", self.path, error)
            self.path.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)
            return self._connect()

    def is_damage(self, error: sqlite3.Error) -> bool:
        """Whether an error tells that the file is damaged, and not that it cannot be reached."""
        fault = next((one for one in OUTER_FAULTS if one in str(error)), None)
        if fault == "readonly":  # a flipped bit in the file's head says so, too
            return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)
        return fault is None

    @property
    def _journal(self) -> Path:
        """The file in which SQLite keeps what it changes until that is done."""
        return self.path.with_name(self.path.name + "-journal")

    def _connect(self) -> sqlite3.Connection:
        for path in (self.path, self._journal):
            with writing(path):
                check_in_place(path)
        # Network shares have no locks that can be relied on; the watch holds one of its own.
        database = sqlite3.connect(f"file:{quote(os.fsencode(self.path))}?nolock=1", uri=True)
        # A text with a flipped bit may be no UTF-8: its checksum finds it.
        database.text_factory = lambda data: data.decode("utf-8", "replace")
        database.create_function("checksum", -1, _checksum, deterministic=True)
        try:
            database.executescript(SCHEMA)
            self._check(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection) -> None:
        """Refuse a damaged file; this takes about 0.6 s for 100,000 rows."""
        (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if "checked" not in [row[1] for row in database.execute("PRAGMA table_info(seen)")]:
            database.execute("ALTER TABLE seen ADD COLUMN checked INTEGER")
        # Rows of an earlier version have no checksum.
        database.execute(f"UPDATE seen SET checked = checksum({FILE}) WHERE checked IS NULL")
        for *row, checked in database.execute(f"SELECT {FILE}, checked FROM seen"):
            if _checksum(*row) != checked:
                raise DAMAGED_ROW

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
            f"SELECT {FILE}, checked FROM seen WHERE name IN ({marks})",
            [os.fsencode(name) for name in names],
        )
        found = {}
        for *row, checked in rows:
            if _checksum(*row) != checked:
                raise DAMAGED_ROW
            name, written, changed, digest, outcome = row
            found[os.fsdecode(name)] = SeenFile(written, changed, digest, SeenAs(outcome))
        return found

    def add(self, name: str, seen: SeenFile) -> None:
        """Remember a file, in place of an older version of it."""
        row = (os.fsencode(name), *seen[:3], int(seen.outcome))
        self._database.execute(
            f"INSERT OR REPLACE INTO seen ({FILE}, checked) VALUES (?,?,?,?,?,?)",
            (*row, _checksum(*row)),
        )

    def commit(self, mark: Mark | None) -> None:
        """Write to the disk that the results up to a line are in the index."""
        if mark is not None:
            self.set("mark", f"{mark.start} {mark.end} {mark.sha256}")
            self.set("checksum", f"{mark.end} {mark.checksum}")  # unknown to earlier versions
        self._database.commit()

    @property
    def mark(self) -> Mark | None:
        """The last line of the results that is in the index."""
        found = self.get("mark")
        if found is None:
            return None
        start, end, digest = found.split()
        of, checksum = (self.get("checksum") or "0 None").split()
        is_known = of == end and checksum != "None"
        return Mark(int(start), int(end), digest, int(checksum) if is_known else None)

    def get(self, key: str) -> str | None:
        """A value that was set; None where there is none, or it is damaged."""
        row = self._database.execute(
            "SELECT value, checked FROM state LEFT JOIN checks USING (key) WHERE key = ?", (key,)
        ).fetchone()
        # An earlier version writes no checksum.
        if row is None or row[1] not in {None, _checksum(key, row[0])}:
            return None
        return os.fsdecode(row[0])

    def set(self, key: str, value: str) -> None:
        """Keep a value."""
        if self.get(key) != value:
            self._set(key, value)

    def _set(self, key: str, value: str) -> None:
        stored: str | bytes = value
        try:
            value.encode()
        except UnicodeEncodeError:  # a path that is no text
            stored = os.fsencode(value)
        self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, stored))
        checked = _checksum(key, stored)
        self._database.execute("INSERT OR REPLACE INTO checks VALUES (?, ?)", (key, checked))

    def note_line(self, name: str, digest: str) -> None:
        """Note that the results have a line of a file, for :meth:`forget_without_line`.

        Args:
            name: of the file.
            digest: SHA-256 of its content, as the line tells it.
        """
        self._database.execute(
            "INSERT OR IGNORE INTO told VALUES (?, ?)", (os.fsencode(name), digest)
        )

    def forget_without_line(self) -> list[str]:
        """Forget the files that have a result, but no line among the ones that were noted.

        Returns:
            their names.
        """
        # The error of a file that only grew since stands for it with its former content.
        without = (
            f"own != {SeenAs.OWN:d} AND NOT EXISTS (SELECT 1 FROM told WHERE told.name = seen.name "
            f"AND (seen.own = {SeenAs.ERROR:d} OR told.sha256 = seen.sha256))"
        )
        rows = self._database.execute(f"SELECT name FROM seen WHERE {without} ORDER BY number")
        names = [os.fsdecode(name) for (name,) in rows]
        self._database.execute(f"DELETE FROM seen WHERE {without}")
        self._database.execute("DELETE FROM told")
        return names

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
