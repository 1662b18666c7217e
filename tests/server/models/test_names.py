"""Names of models: never paths, unless that is allowed."""

from __future__ import annotations

import pytest

from lacewing import hub
from lacewing.errors import OptionError
from lacewing.server.errors import UnknownModelError
from lacewing.server.models import names
from lacewing.server.models.names import Catalogue
from lacewing.server.options import ServerOptions


@pytest.fixture
def folder(tmp_path):
    for name in ("alpha.gguf", "beta-00001-of-00002.gguf", "beta-00002-of-00002.gguf", ".hidden.gguf", "notes.txt"):
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "gamma").mkdir()
    (tmp_path / "gamma" / "config.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    return tmp_path


def catalogue(**options: object) -> Catalogue:
    return Catalogue(ServerOptions(**options))


def test_a_path_is_called_by_its_stem(folder):
    found = catalogue(models=(str(folder / "beta-00001-of-00002.gguf"), str(folder / "gamma")))
    assert [source.name for source in found.sources()] == ["beta", "gamma"]
    assert found.find("beta").source.endswith("beta-00001-of-00002.gguf")
    assert found.find(None).name == found.find("").name == found.default == "beta"


def test_a_name_of_the_hub_is_its_own():
    assert [source.name for source in catalogue(models=("smollm2", "hf:owner/repo:file.gguf")).sources()] == [
        "smollm2",
        "hf:owner/repo:file.gguf",
    ]


def test_a_folder_is_looked_at_again_each_time(folder):
    found = catalogue(models_dir=folder)
    assert [source.name for source in found.sources()] == ["alpha", "beta", "gamma"] and found.find(None).name == "alpha"
    (folder / "delta.gguf").write_bytes(b"GGUF")
    assert found.find("delta").created > 0
    (folder / "alpha.gguf").unlink()
    with pytest.raises(UnknownModelError):
        found.find("alpha")


def test_named_ones_go_before_those_of_the_folder(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "alpha.gguf"
    other.write_bytes(b"GGUF")
    found = catalogue(models=(str(other),), models_dir=folder)
    assert found.find("alpha").source == str(other) and len(found.sources()) == 3


def test_fetched_models(folder, monkeypatch):
    cached = hub.Cached("pypi:some-model", "pypi:some-model", "alpha.gguf", {}, 4)
    monkeypatch.setattr(names.hub, "list_models", lambda: [cached])
    assert catalogue(fetched=True).find("pypi:some-model").source == "pypi:some-model"


def test_two_of_one_name_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "alpha.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(OptionError, match="both be called 'alpha'"):
        catalogue(models=(str(folder / "alpha.gguf"), str(other)))
    assert len(catalogue(models=(str(other), str(other))).sources()) == 1


@pytest.mark.parametrize("options", [{}, {"models_dir": "empty"}])
def test_nothing_to_serve_is_refused(options, folder):
    with pytest.raises(OptionError, match=r"nothing to serve|no model in"):
        catalogue(**{name: folder / value for name, value in options.items()})


def test_what_does_not_exist_is_refused_at_once(folder):
    from lacewing.errors import LacewingError

    with pytest.raises(LacewingError, match="did you mean"):
        catalogue(models=(str(folder / "alpah.gguf"),))


HOSTILE = ["../alpha.gguf", "/etc/passwd", "~", "~root", "\0", "\udc80", "a" * 100_000, "alpha.gguf", "./alpha", "file:///etc/passwd",
           "https://evil.example/x.gguf", "hf:evil/repo", "C:\\x", "\x1b[31m", "alpha\n", " alpha"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_of_a_request_is_no_path(name, folder, monkeypatch):
    """Nothing is opened or fetched, and nothing of it controls a terminal."""
    monkeypatch.chdir(folder)
    found = catalogue(models_dir=folder)
    monkeypatch.setattr(names.hub, "path_of", lambda *_: pytest.fail("it was fetched"))
    monkeypatch.setattr(names, "user_path", lambda *_: pytest.fail("it was looked for"))
    with pytest.raises(UnknownModelError) as raised:
        found.find(name)
    assert raised.value.status == 404 and str(raised.value).isprintable() and len(str(raised.value)) < 500


def test_paths_when_they_are_allowed(folder):
    found = catalogue(allow_paths=True)
    path = str(folder / "alpha.gguf")
    assert found.find(path).source == found.find(path).name == path
    for name in ("smollm2", str(folder / "missing.gguf"), "", None, "a" * 5000, "\0"):
        with pytest.raises(UnknownModelError):
            found.find(name)
