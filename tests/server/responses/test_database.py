"""The file of responses: limits, age, several at once, and damage."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading

import pytest

from lacewing.server.responses import database as module
from lacewing.server.responses.database import Database, StoreError


def body(id: str, previous: str | None = None) -> dict:
    output = [{"id": f"out_{id}", "type": "message", "role": "assistant", "content": []}]
    return {"id": id, "status": "completed", "output": output, "previous_response_id": previous, "conversation": None}


def item(text: str) -> dict:
    return {"id": f"in_{text[:20]}", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "responses.sqlite3"


def test_a_chain_is_read_from_its_beginning(path):
    database = Database(path, 30, 1 << 30)
    for at in range(300):
        database.save(body(str(at), str(at - 1) if at else None), [item(str(at))])
    history = database.history("299")
    assert [each["id"] for each in history[:4]] == ["in_0", "out_0", "in_1", "out_1"] and len(history) == 600
    assert database.delete_response("100") and not database.delete_response("100")
    assert database.history("299") is None and len(database.history("99")) == 200
    database.close()


def test_the_oldest_go_when_there_are_too_many(path):
    most = 4 << 20
    database = Database(path, 30, most)
    for at in range(120):
        database.save(body(str(at)), [item(f"{at} " + "x" * 100_000)])
        database.history("0")  # what is used stays
    with sqlite3.connect(path) as db:
        kept = [int(row[0]) for row in db.execute("SELECT id FROM responses")]
    assert 119 in kept and 0 in kept and len(kept) < 45 and 1 not in kept
    assert path.stat().st_size < 2 * most
    database.save(body("huge"), [item("y" * (2 * most))])
    assert database.response("huge") is not None  # never the newest
    database.close()


@pytest.mark.parametrize("holders", [("resp_a", "resp_b"), ("resp_b", "resp_a")])
def test_of_several_items_of_one_id_the_newest_is_meant(path, holders, monkeypatch):
    """Clients choose ids of their own, such as msg_1 in each conversation; those of holders say nothing about their age."""
    database, now = Database(path, 30, 1 << 30), [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    for holder, text in zip(holders, ("old", "new"), strict=True):
        database.save(body(holder), [{**item(text), "id": "msg_1"}])
        now[0] += 1
    assert database.item("msg_1")["content"][0]["text"] == "new"
    database.save_conversation({"id": "conv"}, [{**item("newest"), "id": "msg_1"}])
    assert database.item("msg_1")["content"][0]["text"] == "newest"
    assert database.item("msg_2") is None
    database.close()


def test_a_file_that_others_could_read_is_closed_to_them(path):
    path.touch(mode=0o644)
    path.chmod(0o644)
    database = Database(path, 30, 1 << 30)
    database.save(body("a"), [item("a")])
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}
    database.close()


def test_what_nobody_used_for_long_is_deleted(path, monkeypatch):
    database, now = Database(path, 1, 1 << 30), [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    database.save(body("a"), [item("a")])
    database.save(body("b", "a"), [item("b")])
    database.save(body("c"), [item("c")])
    database.save_conversation({"id": "conv"}, [item("d")])
    now[0] += 80_000
    assert database.history("b") is not None  # a use of all that it goes on from
    now[0] += 10_000
    database.save(body("e"), [])
    assert [database.response(id) is not None for id in "abce"] == [True, True, False, True]
    assert database.conversation("conv") is None and database.item("in_d") is None
    database.close()


def test_a_file_that_is_none(path):
    path.write_bytes(b"This is no database." * 100)
    database = Database(path, 30, 1 << 30)
    with pytest.raises(StoreError, match="cannot be kept"):
        database.save(body("a"), [])
    assert path.read_bytes().startswith(b"This is no")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_left_as_it_is(path, make):
    """A store that was /dev/null would otherwise be closed to all others."""
    make(path)
    path.chmod(0o744)
    with pytest.raises(StoreError, match="not a regular file"):
        Database(path, 30, 1 << 30).save(body("a"), [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o744


def test_a_file_of_a_newer_version(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer Lacewing"):
        Database(path, 30, 1 << 30).response("a")


def test_a_write_that_fails_changes_nothing(path):
    database = Database(path, 30, 1 << 30)
    database.save(body("a"), [item("first")])

    with pytest.raises(KeyError):
        database.save({**body("a"), "status": "other"}, [{"type": "message"}])
    assert database.response("a").body["status"] == "completed" and database.input("a") == [item("first")]
    database.close()


def test_two_servers_share_a_file(path):
    problems = []

    def work(name: str) -> None:
        database = Database(path, 30, 1 << 30)
        try:
            for at in range(40):
                database.save(body(f"{name}{at}"), [item(name)])
                assert database.response(f"{name}{at}") is not None
        except Exception as error:
            problems.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
