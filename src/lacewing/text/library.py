"""The tokenizers library fails in its own ways: plain Exception, and panics, which are no Exception at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lacewing.errors import LacewingError, TokenizerError


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Around a call of the library. Its failures become a TokenizerError that names `what`."""
    try:
        yield
    except (LacewingError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what}: {str(error)[:300]}") from error
