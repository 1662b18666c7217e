"""Which experts a mixture of experts uses."""

from __future__ import annotations

from lacewing.chat.commands.table import Argument, Reply, command
from lacewing.chat.session.session import Session
from lacewing.console.heat import LEGEND, table
from lacewing.errors import OptionError
from lacewing.options import counted

LIVE = "experts_live"  # of a session: whether a map is shown below an answer while it comes


@command("experts", Argument("state", "on/off", ("live", "quiet")))
def experts(chat: Session, state: bool | str | None = None) -> Reply:
    """Show how the experts of each layer were used for the last prompt and answer; the first use starts to watch them.

    In a terminal, a map of their load stands below every answer while it comes, the experts of the newest token reversed;
    `/experts quiet` hides the map, `live` shows it again, `off` stops watching. Watching costs little, and nothing while it is
    off.
    """
    from lacewing.engine.routing import AnswerRouting, has_sequence_loss, routers

    program, engine, loaded = chat.model.spec.program, chat.model.engine, chat.loaded
    if not routers(program):
        raise OptionError(f"{chat.model.spec.name} is a dense model: it has no experts")
    if state is not None:
        chat.extras[LIVE] = state in (True, "live")
    if state is False:
        if loaded.routing is not None:
            engine.unobserve(loaded.routing)
            loaded.routing = None
        return Reply("the experts are not watched")
    if loaded.routing is None:
        routing = AnswerRouting()
        engine.observe(routing)
        loaded.routing = routing
        chat.extras.setdefault(LIVE, True)
        return Reply("the experts are watched from now on: send a message, then /experts shows them; /experts off stops")
    if isinstance(state, str):
        return Reply("a map of the experts is shown below answers" if state == "live" else "no map is shown below answers")
    layers = loaded.routing.statistics.layers()
    if not layers:
        return Reply("the experts are watched; there is no answer since then")
    use = chat.model.step.cache_statistics
    told = f"{counted(layers[0].tokens, 'token')} of the last prompt and answer\n" + (f"{use}\n" if use else "")
    return Reply(f"{told}{LEGEND}", table(layers, sequences=has_sequence_loss(program)))
