"""Where responses and conversations are kept: one SQLite file, used by one thread. Each call is one transaction."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lacewing.server.errors import ServerError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, previous TEXT, conversation TEXT, owner TEXT, used REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY, used REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    holder TEXT NOT NULL, place INTEGER NOT NULL, output INTEGER NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (holder, place)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_id ON items (id);
CREATE INDEX IF NOT EXISTS responses_by_use ON responses (used);
CREATE INDEX IF NOT EXISTS conversations_by_use ON conversations (used);
"""
_ITEM = """
SELECT items.body FROM items LEFT JOIN responses ON responses.id = holder LEFT JOIN conversations ON conversations.id = holder
WHERE items.id = ? ORDER BY output DESC, COALESCE(responses.used, conversations.used) DESC LIMIT 1
"""
_TABLES = ("responses", "conversations")
_VERSION = 1
_ROOM = 0.9  # of the limit is filled after old responses have gone
_PIECE = 100  # that are looked up at once
_BUSY = 5.0  # seconds that another process may hold the file

Item = dict[str, Any]


class StoreError(ServerError):
    """The file cannot be used."""

    status, code = 503, "store_unavailable"


class Stored(NamedTuple):
    """A response as it is kept. `owner`: the process that runs it, if it is not over."""

    body: dict[str, Any]
    previous: str | None
    conversation: str | None
    owner: str | None


class Database:
    """`days`: since its last use, after which something is deleted; `nbytes`: of the file, above which the oldest is."""

    def __init__(self, path: Path, days: float, nbytes: int):
        self._path, self._seconds, self._nbytes = path, days * 86400, nbytes
        self._opened: sqlite3.Connection | None = None

    # responses

    def save(self, body: dict[str, Any], items: Sequence[Item], owner: str | None = None, *, adds: bool = False) -> None:
        """A response with its input, in place of what was there. `adds`: all of it is added to its conversation, if that is there.

        `owner`: the process that runs it, if it is not over.
        """
        previous, named = body["previous_response_id"], body["conversation"]
        conversation: str | None = None if named is None else named["id"]
        with self._transaction() as db:
            id, output = body["id"], body["output"]
            db.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?)",
                (id, previous, conversation, owner, time.time(), _text({**body, "output": []})),
            )
            db.execute("DELETE FROM items WHERE holder = ?", (id,))
            self._add(db, id, items, output=False)
            self._add(db, id, output, output=True)
            if adds and conversation and db.execute("SELECT 1 FROM conversations WHERE id = ?", (conversation,)).fetchone():
                self._add(db, conversation, [*items, *output], output=False)
                self._use(db, "conversations", [conversation])
            self._make_room(db)

    def response(self, id: str) -> Stored | None:
        with self._transaction() as db:
            row = db.execute("SELECT body, previous, conversation, owner FROM responses WHERE id = ?", (id,)).fetchone()
            if row is None:
                return None
            return Stored({**json.loads(row[0]), "output": self._items(db, id, output=True)}, *row[1:])

    def history(self, id: str) -> list[Item] | None:
        """All items up to the end of a response, those of the responses before it first. None where one of them is missing."""
        chain: list[str] = []
        with self._transaction() as db:
            before: str | None = id
            while before is not None:
                row = db.execute("SELECT previous FROM responses WHERE id = ?", (before,)).fetchone()
                if row is None:
                    return None
                chain.append(before)
                before = row[0]
            self._use(db, "responses", chain)
            return [item for each in reversed(chain) for item in self._items(db, each)]

    def input(self, id: str) -> list[Item]:
        """What a response was made from, without what stood before."""
        with self._transaction() as db:
            return self._items(db, id, output=False)

    def delete_response(self, id: str) -> bool:
        """Whether there was one."""
        with self._transaction() as db:
            return self._delete(db, "responses", [id]) > 0

    def item(self, id: str) -> Item | None:
        """Of that id, wherever it is: one that a model wrote if there is one, else of what was used last."""
        with self._transaction() as db:
            row = db.execute(_ITEM, (id,)).fetchone()
            return None if row is None else json.loads(row[0])

    # conversations

    def save_conversation(self, body: dict[str, Any], items: Iterable[Item] = ()) -> None:
        """A new one, or another body for one; items are added."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO conversations VALUES (?, ?, ?)", (body["id"], time.time(), _text(body)))
            self._add(db, body["id"], items, output=False)
            self._make_room(db)

    def conversation(self, id: str) -> tuple[dict[str, Any], list[Item]] | None:
        with self._transaction() as db:
            row = db.execute("SELECT body FROM conversations WHERE id = ?", (id,)).fetchone()
            if row is None:
                return None
            self._use(db, "conversations", [id])
            return json.loads(row[0]), self._items(db, id)

    def delete_conversation(self, id: str) -> bool:
        """Whether there was one."""
        with self._transaction() as db:
            return self._delete(db, "conversations", [id]) > 0

    def delete_item(self, holder: str, id: str) -> bool:
        """Whether there was one."""
        with self._transaction() as db:
            return db.execute("DELETE FROM items WHERE holder = ? AND id = ?", (holder, id)).rowcount > 0

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # what they are made of

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Raises StoreError; then nothing was changed."""
        try:
            db = self._open()
            with db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"responses cannot be kept in {self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        """Made with the first use, for this user's eyes only."""
        if self._opened is not None:
            return self._opened
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path.exists() and not self._path.is_file():
            raise OSError("it is not a regular file")
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._path.chmod(0o600)  # where it was there before
        db = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)
        try:
            _switch(db)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise sqlite3.DatabaseError(f"it is of a newer Lacewing (version {version})")
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
            self._opened = db
        except BaseException:
            db.close()
            raise
        return db

    def _add(self, db: sqlite3.Connection, holder: str, items: Iterable[Item], *, output: bool) -> None:
        place = db.execute("SELECT COALESCE(MAX(place), -1) + 1 FROM items WHERE holder = ?", (holder,)).fetchone()[0]
        rows = [(holder, place + at, output, item["id"], _text(item)) for at, item in enumerate(items)]
        db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?)", rows)

    @staticmethod
    def _items(db: sqlite3.Connection, holder: str, output: bool | None = None) -> list[Item]:
        query = "SELECT body FROM items WHERE holder = ? AND (? IS NULL OR output = ?) ORDER BY place"
        return [json.loads(row[0]) for row in db.execute(query, (holder, output, output))]

    @staticmethod
    def _use(db: sqlite3.Connection, table: str, ids: list[str]) -> None:
        db.executemany(f"UPDATE {table} SET used = ? WHERE id = ?", [(time.time(), id) for id in ids])

    @staticmethod
    def _delete(db: sqlite3.Connection, table: str, ids: list[str]) -> int:
        db.executemany("DELETE FROM items WHERE holder = ?", [(id,) for id in ids])
        return db.executemany(f"DELETE FROM {table} WHERE id = ?", [(id,) for id in ids]).rowcount

    def _make_room(self, db: sqlite3.Connection) -> None:
        """Delete what is too old, then what was used least recently until the rest fits; never the newest."""
        for table in _TABLES:
            rows = db.execute(f"SELECT id FROM {table} WHERE used < ?", (time.time() - self._seconds,)).fetchall()
            self._delete(db, table, [row[0] for row in rows])
        full = self._size(db) > self._nbytes
        while full and (oldest := self._oldest(db)):
            for id, table in oldest:
                if self._size(db) <= _ROOM * self._nbytes:
                    return
                self._delete(db, table, [id])

    @staticmethod
    def _oldest(db: sqlite3.Connection) -> list[tuple[str, str]]:
        """Ids and tables of some, the least recently used first; without the newest of all."""
        query = " UNION ALL ".join(f"SELECT id, '{table}', used FROM {table}" for table in _TABLES)
        rows = db.execute(f"{query} ORDER BY used LIMIT ?", (_PIECE + 1,)).fetchall()
        return [(id, table) for id, table, _ in rows[:-1]]

    @staticmethod
    def _size(db: sqlite3.Connection) -> int:
        """Bytes in use; what was deleted is used again."""
        pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
        return int((pages - free) * size)


def _switch(db: sqlite3.Connection) -> None:
    """To a log that readers need not wait for. SQLite does not wait here for a process that does the same."""
    until = time.monotonic() + _BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
