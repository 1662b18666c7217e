import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for each test; nothing here reaches the user's."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LACEWING_CACHE", str(folder))
    return folder
