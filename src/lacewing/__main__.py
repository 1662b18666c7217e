"""The command `lacewing`, also as `python -m lacewing`: Ctrl-C ends it quietly from its first import to its last line."""

import _signal  # type: ignore[import-not-found]  # signal itself takes milliseconds to import
import os
import sys


def _leave(*_: object) -> None:
    """While modules are imported there is nothing to tidy up, and an exception would show where it was or get lost in them."""
    os._exit(130)


if _OURS := _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # in the background of a shell it is ignored
    _signal.signal(_signal.SIGINT, _leave)


def main() -> None:
    """The command. Exit codes as `lacewing.cli.main`."""
    import lacewing.cli.app

    report = sys.unraisablehook
    # Ctrl-C within what Python calls by itself, such as the end of an object's life, can reach nobody as an exception
    sys.unraisablehook = lambda lost: _leave() if lost.exc_type is KeyboardInterrupt else report(lost)
    try:
        if _OURS:
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        lacewing.cli.main()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        if _OURS:
            _signal.signal(_signal.SIGINT, _leave)


if __name__ == "__main__":
    main()
