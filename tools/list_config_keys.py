"""Adds to a file which keys of config.json the classes of transformers declare, of the model types that we read.

    python tools/list_config_keys.py tests/data/config_keys.json    # once with transformers 4, once with 5

The tests ask that each of these keys is read, or known to change nothing, or refused: never taken for a trainer's own.
"""

import inspect
import json
import sys
from pathlib import Path

import transformers

TYPES = """llama mistral mixtral gemma gemma2 gemma3_text qwen2 qwen3 qwen3_moe deepseek_v2 deepseek_v3 glm4_moe glm4_moe_lite
llama4_text gpt_oss lfm2 phi3 olmoe mistral4 granite granitemoe granitemoeshared olmo2 olmo3 glm glm4 smollm3
qwen3_next qwen3_5_text qwen3_5_moe_text""".split()  # noqa: SIM905


def declared(kind: type) -> set[str]:
    names = {name for each in kind.__mro__ for name in getattr(each, "__annotations__", {})}
    names |= set(inspect.signature(kind.__init__).parameters)
    return names & set(kind().to_dict())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    found = json.loads(path.read_text()) if path.exists() else {}
    for name in TYPES:
        if name in transformers.CONFIG_MAPPING:
            found[name] = sorted(set(found.get(name, [])) | declared(transformers.CONFIG_MAPPING[name]))
    path.write_text(json.dumps(found, indent=0, separators=(",", ":")) + "\n")
