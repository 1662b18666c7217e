"""llama.cpp through the C API of prebuilt libraries, as the peer that we are measured against.

Any directory that holds libllama and the ggml libraries will do, for example that of `npm pack @node-llama-cpp/linux-x64`
after unpacking: `package/bins/linux-x64`. The few declarations below are from llama.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np

BATCH, MICRO_BATCH = 2048, 512  # llama.cpp's own defaults


class PeerError(RuntimeError):
    """The libraries cannot be loaded, or refuse what they are given."""


class _Parameters(ctypes.Structure):
    """Parameters passed by value. Their C structs grow from version to version; this is larger than any of them."""

    _fields_ = (("content", ctypes.c_uint32 * 128),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


_LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32
_FUNCTIONS = {  # name: result, arguments
    "llama_model_default_params": (_Parameters, ()),
    "llama_context_default_params": (_Parameters, ()),
    "llama_model_load_from_file": (_POINTER, (ctypes.c_char_p, _Parameters)),
    "llama_model_free": (None, (_POINTER,)),
    "llama_model_get_vocab": (_POINTER, (_POINTER,)),
    "llama_vocab_n_tokens": (_INT, (_POINTER,)),
    "llama_init_from_model": (_POINTER, (_POINTER, _Parameters)),
    "llama_free": (None, (_POINTER,)),
    "llama_set_n_threads": (None, (_POINTER, _INT, _INT)),
    "llama_get_memory": (_POINTER, (_POINTER,)),
    "llama_memory_clear": (None, (_POINTER, ctypes.c_bool)),
    "llama_memory_seq_cp": (None, (_POINTER, _INT, _INT, _INT, _INT)),
    "llama_batch_get_one": (_Batch, (_POINTER, _INT)),
    "llama_decode": (_INT, (_POINTER, _Batch)),
    "llama_get_logits_ith": (ctypes.POINTER(ctypes.c_float), (_POINTER, _INT)),
    "llama_log_set": (None, (_LogCallback, _POINTER)),
    "llama_print_system_info": (ctypes.c_char_p, ()),
}


def _library(folder: Path, *patterns: str) -> ctypes.CDLL:
    """The first file that matches, with its symbols open to the libraries loaded after it."""
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            try:
                return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                raise PeerError(f"cannot load {path}: {error}") from error
    raise PeerError(f"{folder} holds no {patterns[0]}; give the directory with llama.cpp's shared libraries")


def _map(settings: _Parameters) -> None:
    """Weights mapped from the file as they are: with copies in another order it does not run in less memory than the file.

    Raises PeerError if these libraries' parameters are in another order than those of llama.h of October 2026.
    """
    if tuple(settings.content[index] for index in (4, 5, 6, 18)) != (2**32 - 1, 1, 2**32 - 1, 1 << 16):
        raise PeerError("these libraries have other parameters than those of October 2026, so that mapping cannot be asked for")
    settings.content[6] = 1  # load_mode: LLAMA_LOAD_MODE_MMAP
    settings.content[18] = 0  # use_extra_bufts, which repacks weights


class Peer:
    """One model in one llama.cpp context. `mapped`: its weights stay in the file (mmap), none are repacked."""

    def __init__(self, folder: Path, model: Path, threads: int, context: int, sequences: int = 1, *, mapped: bool = False):
        base = _library(folder, "libggml-base.*", "ggml-base.dll")
        ggml = _library(folder, "libggml.*", "ggml.dll")
        self._llama = llama = _library(folder, "libllama.*", "llama.dll")
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(llama, name)
            function.restype, function.argtypes = result, arguments
        self._silence = _LogCallback(lambda level, text, data: None)  # kept: C holds its address
        llama.llama_log_set(self._silence, None)
        ggml.ggml_backend_load_all_from_path(str(folder).encode())  # the kernels of this processor
        self._base = base
        settings = llama.llama_model_default_params()
        if mapped:
            _map(settings)
        self._model = llama.llama_model_load_from_file(str(model).encode(), settings)
        if not self._model:
            raise PeerError(f"llama.cpp does not load {model}")
        parameters = llama.llama_context_default_params()
        # n_ctx, n_batch, n_ubatch and n_seq_max come first
        parameters.content[:4] = [context, BATCH, MICRO_BATCH, sequences]
        self._context = llama.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise PeerError(f"llama.cpp makes no context of {context} tokens")
        self.use_threads(threads)
        self.vocab_size = int(llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model)))

    @property
    def system(self) -> str:
        """What llama.cpp says that it uses of this processor."""
        return str(self._llama.llama_print_system_info().decode(errors="replace")).strip()

    def use_threads(self, count: int) -> None:
        """For prompts and single tokens from now on."""
        self._llama.llama_set_n_threads(self._context, count, count)

    def forget(self) -> None:
        """Drop all keys and values."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), True)

    def extend(self, ids: Sequence[int]) -> np.ndarray:
        """Run `ids` after what came before; float32 (V,), the logits after the last of them, valid until the next run."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)
        status = self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(tokens, len(ids)))
        if status != 0:
            raise PeerError(f"llama_decode returned {status}")
        return np.ctypeslib.as_array(self._llama.llama_get_logits_ith(self._context, -1), (self.vocab_size,))

    def copy(self, source: int, to: int) -> None:
        """What one sequence has cached, for another one as well."""
        self._llama.llama_memory_seq_cp(self._llama.llama_get_memory(self._context), source, to, -1, -1)

    def run(self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], outputs: int | None = None) -> None:
        """Run tokens of several sequences together, and wait for the logits of the last `outputs` of them; None: of all."""
        count = len(ids)
        made = count if outputs is None else outputs
        each = [(ctypes.c_int32 * 1)(number) for number in sequences]
        numbers = (ctypes.c_void_p * count)(*[ctypes.addressof(one) for one in each])
        arrays = [(ctypes.c_int32 * count)(*values) for values in (ids, positions, [1] * count)]
        wanted = (ctypes.c_int8 * count)(*[0] * (count - made), *[1] * made)
        tokens, places, counts = (ctypes.addressof(array) for array in arrays)
        batch = _Batch(count, tokens, None, places, counts, ctypes.addressof(numbers), ctypes.addressof(wanted))
        status = self._llama.llama_decode(self._context, batch)
        if status != 0:
            raise PeerError(f"llama_decode returned {status}")
        self._llama.llama_get_logits_ith(self._context, count - 1)

    def close(self) -> None:
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)
