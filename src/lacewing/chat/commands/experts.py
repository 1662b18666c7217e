"""Which experts a mixture of experts uses."""

from __future__ import annotations

from lacewing.chat.command import Argument, Reply, command
from lacewing.chat.heat import LEGEND, table
from lacewing.chat.session import Session
from lacewing.errors import OptionError


@command("experts", Argument("state", "on/off"))
def experts(chat: Session, state: bool | None = None) -> Reply:
    """Show how the experts of each layer were used for the last prompt and answer; the first use begins to watch them.

    It costs nothing while it is off, and little while it is on.
    """
    from lacewing.engine.routing import WatchedStep, has_sequence_loss, routers

    program = chat.model.spec.program
    if not routers(program):
        raise OptionError(f"{chat.model.spec.name} is a dense model: it has no experts")
    step = chat.model.engine.step
    if state is False:
        if isinstance(step, WatchedStep):
            step.watch_routes(False)
            chat.model.engine.step = step.step
        return Reply("the experts are not watched")
    if not isinstance(step, WatchedStep):
        chat.model.engine.step = WatchedStep(step)
        return Reply("the experts are watched from now on: say something, then /experts shows them; /experts off ends it")
    layers = step.statistics.layers()
    if not layers:
        return Reply("the experts are watched; nothing has been answered since")
    return Reply(
        f"{layers[0].tokens} tokens of the last prompt and answer\n{LEGEND}", table(layers, sequences=has_sequence_loss(program))
    )
