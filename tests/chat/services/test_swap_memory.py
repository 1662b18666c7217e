"""/model: memory does not grow."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("kept", [True, False])  # back and forth, or opened anew each time
def test_memory_after_fifty_swaps(kept, paths):
    swap_fifty_times(kept, paths["llama"], paths["gemma"])


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_memory_after_fifty_swaps_of_real_models(kept, smollm2_path, gemma3_path):
    swap_fifty_times(kept, smollm2_path, gemma3_path)


def swap_fifty_times(kept, *models):
    """In a process of its own, where nothing else takes or frees memory."""
    code = f"""
import gc, sys
from lacewing.chat.services.opening import open_session
from lacewing.chat.services.evict import MAX_PARKED
from lacewing.chat.services.opening import list_models, model_names
from lacewing.chat.services.swap import change_model
from lacewing.options import LoadOptions, Sampling
from lacewing.weights.machine import process_bytes
session = open_session(sys.argv[1], LoadOptions("cpu", context=512, residency="eager"), Sampling(temperature=0, max_tokens=6))
list(session.say("Hello"))
for count in range(50):
    if not {kept}:
        session.drop_parked()
    change_model(session, sys.argv[2 - count % 2])
    if count in (0, 1, 48, 49):  # the first and the last to each of the two
        gc.collect()
        print(process_bytes())
session.close()
"""
    words = [sys.executable, "-c", code, *map(str, models)]
    numbers = list(map(int, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()))
    for first, last in zip(numbers[:2], numbers[2:], strict=True):
        assert last <= 1.05 * first, f"{first / 2**20:.1f} MiB, then {last / 2**20:.1f} MiB"
