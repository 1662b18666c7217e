"""`lacewing serve` that looks at each model's pages before it leaves the memory: python -m tests.server.soak.host FILE MODEL ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lacewing import __main__
from lacewing.server.models import loading
from lacewing.server.models.served import Served
from tests.engine.test_sequences import check_holders


def audit(served: Served) -> dict[str, object]:
    """Pages that somebody holds besides the prefix cache, once all requests have ended."""
    engine = served.model.engine
    scheduler = engine.scheduler
    found: dict[str, object] = {"model": served.name, "running": len(scheduler.running), "waiting": len(scheduler.waiting)}
    try:
        check_holders(engine)
    except AssertionError as error:
        found["holders"] = str(error)
    found["cached"] = sum(scheduler.pages.used(group) for group in range(len(engine.step.groups)))
    found["preemptions"] = scheduler.counters.preemptions
    engine.forget()
    found["leaked"] = sum(scheduler.pages.used(group) for group in range(len(engine.step.groups)))
    return found


def main() -> None:
    file = Path(sys.argv.pop(1))

    def unload(served: Served) -> None:
        served.worker.close()
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(audit(served)) + "\n")
        served.model.close()

    loading.unload = unload
    sys.argv.insert(1, "serve")
    __main__.main()


if __name__ == "__main__":
    main()
