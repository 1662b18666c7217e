"""Every error that a person can cause. Each message names what is wrong and what to do about it."""

from __future__ import annotations

from pathlib import Path


class LacewingError(Exception):
    """Base of all errors that a person's input, files or machine can cause."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for the middle of a message of ours; its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class ModelFormatError(LacewingError):
    """A file breaks its format. The message names the file and, where known, the field and the byte offset."""

    def __init__(self, path: str | Path, problem: str, *, field: str | None = None, offset: int | None = None):
        self.path, self.problem, self.field, self.offset = str(path), problem, field, offset
        where = "".join((f", field {field!r}" if field else "", f", byte {offset}" if offset is not None else ""))
        super().__init__(f"{path}{where}: {problem}")


class UnsupportedModelError(LacewingError):
    """A well-formed checkpoint that this version cannot run correctly: architecture, quant, tokenizer or key."""


class WeightError(LacewingError):
    """A checkpoint lacks weights that its architecture needs, has left-over ones, or has them in another shape."""


class OptionError(LacewingError, ValueError):
    """A parameter is out of its range; the message names the parameter, the value and the range."""


class GrammarError(OptionError):
    """A grammar, regex or JSON schema is malformed, too large or cannot be met; the message names the place in it."""


class ContextOverflowError(LacewingError):
    """The prompt does not fit the context; the message gives both lengths."""


class OutOfMemoryError(LacewingError):
    """The memory plan does not fit; the message gives what is needed and what there is."""


class TemplateError(LacewingError):
    """A chat template is broken, refuses the conversation, or exceeds its time or size limit."""


class TokenizerError(LacewingError):
    """The tokenizer metadata is missing, damaged or of an unknown kind."""


class BackendError(LacewingError):
    """A backend cannot be used here: a driver, a library or a feature of the CPU is missing."""


class DeviceLostError(BackendError):
    """A device is gone, and all that was on it: nothing can run before the model is loaded again."""


class NumericError(LacewingError):
    """The model produced NaN logits; the request fails rather than returning noise.

    `suspect`: the files may be damaged, and the message says so; `advice`: what else may help, behind that; `pack`: the path of a
    pack that experts are read from, which may be damaged as well.
    """

    def __init__(self, problem: str, *, suspect: bool = False, advice: str = "", pack: str = ""):
        self._problem, self._suspect, self._advice = problem, suspect, advice
        also = f" or its pack {pack} (`lacewing pack MODEL --verify`)" if pack else ""
        super().__init__(f"{problem}; the checkpoint may be damaged (compare its checksum){also}{advice}" if suspect else problem)

    def from_pack(self, pack: str) -> NumericError:
        """The same of weights that are read from a pack as well; "": there is none."""
        return NumericError(self._problem, suspect=True, advice=self._advice, pack=pack) if self._suspect and pack else self


class DownloadError(LacewingError):
    """A checkpoint could not be fetched, or what came does not have the expected checksum."""


class Cancelled(LacewingError):
    """Long work was cancelled by its caller; the state before it is whole."""


def install_extra(name: str) -> str:
    """The command for an extra of ours, for messages: from the package index, and from a clone, whose files pip must be shown."""
    return f"pip install 'lacewing[{name}]' (in a clone: pip install '.[{name}]')"
