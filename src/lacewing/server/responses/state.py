"""What the endpoints for responses share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lacewing.server.openai.errors import RequestError
from lacewing.server.responses.running import Runs
from lacewing.server.responses.store import Store


@dataclass(frozen=True)
class State:
    """`store`: None where nothing is kept."""

    store: Store | None
    runs: Runs = field(default_factory=Runs)

    @property
    def kept(self) -> Store:
        """Raises RequestError."""
        if self.store is None:
            message = "this server keeps no responses and conversations (--no-store)"
            raise RequestError(message, status=501, code="not_supported")
        return self.store

    async def close(self) -> None:
        """End what runs, and keep what came of it."""
        await self.runs.close()
        if self.store is not None:
            await self.store.close()


def state_of(app: Any) -> State:
    """Of a Starlette application that `create_app` made."""
    state: State = app.state.responses
    return state
