"""What a request is refused for before a model is asked. Each has the status that it is told with."""

from __future__ import annotations

from lacewing.errors import LacewingError


class ServerError(LacewingError):
    """A request that cannot be served.

    `status`: of the answer; `code`: for programs; `retry_after`: seconds, if it may work then.
    """

    status, code = 500, "internal_error"

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after


class UnknownModelError(ServerError):
    """There is no model of that name here."""

    status, code = 404, "model_not_found"


class ModelLoadError(ServerError):
    """A model could not be loaded; `__cause__` says why, and the next request tries again."""

    status, code = 503, "model_load_failed"


class GivenUpError(ModelLoadError):
    """Loading a model was given up because somebody wants it out of the memory."""


class DrainingError(ServerError):
    """The server is ending: what runs is finished, nothing new begins."""

    status, code = 503, "shutting_down"
