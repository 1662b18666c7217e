import pytest

from tests.hub.server import serving


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for each test; nothing here reaches the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LACEWING_CACHE", str(folder))
    return folder


@pytest.fixture
def there(monkeypatch):
    """A server on this machine: see `tests.hub.server`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with serving() as server:
        yield server
