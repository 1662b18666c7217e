"""How a model is to be served, where people have changed it since the server began."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lacewing.assistant.templates import AUTO
from lacewing.options import LoadOptions


@dataclass(frozen=True)
class Setup:
    """`context`, in tokens, and `residency`: None is what the server was started with. `template`: a name, or "auto"."""

    context: int | None = None
    residency: str | None = None
    template: str = AUTO

    def options(self, load: LoadOptions) -> LoadOptions:
        """Those of the server, with what was changed. Raises OptionError."""
        context = load.context if self.context is None else self.context
        residency = self.residency or load.residency
        return dataclasses.replace(load, context=context, residency=residency, residency_is_default=self.residency is None)
