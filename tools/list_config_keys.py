"""Adds to a file which keys of config.json the classes of transformers declare, of the model types that rows describe.

    python tools/list_config_keys.py tests/data/config_keys.json    # once with transformers 4, once with 5

The tests ask that each of these keys is read, or known to change nothing, or refused: never taken for a trainer's own.
"""

import inspect
import json
import sys
from pathlib import Path

import transformers

from lacewing.models import known_architectures
from lacewing.models.opening import find_architecture


def types() -> set[str]:
    """Model types that a row describes."""
    rows = [find_architecture(file, file) for file in known_architectures()]
    return {name for row in rows for name in (row.name, *row.also)}


def declared(kind: type) -> set[str]:
    names = {name for each in kind.__mro__ for name in getattr(each, "__annotations__", {})}
    names |= set(inspect.signature(kind.__init__).parameters)
    return names & set(kind().to_dict())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in types() & set(transformers.CONFIG_MAPPING):
        if "text_config" not in transformers.CONFIG_MAPPING[name]().to_dict():  # else a wrapper of several parts
            found[name] = sorted(set(found.get(name, [])) | declared(transformers.CONFIG_MAPPING[name]))
    lines = [f"{json.dumps(name)}:{json.dumps(found[name], separators=(',', ':'))}" for name in sorted(found)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
