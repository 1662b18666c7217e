"""What becomes of the tasks of a run that failed: whoever made it fail is found, and the others go on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from lacewing.engine.admission import Admission
from lacewing.engine.request import Task
from lacewing.errors import Cancelled, DeviceLostError, LacewingError, NumericError


class Recovery(Admission):
    """A run reads states and writes elsewhere (positions behind the last one, units that nobody reads), so one that failed has
    changed nothing, and can be made again. After a fault each of its tasks runs alone once; a task that fails alone is to blame.
    """

    def _recover(self, tasks: Sequence[Task], error: Exception) -> None:
        """A run of these tasks raised an error."""
        was_ahead = self.is_ahead
        self.end_ahead()
        for task in tasks:
            task.sampler.choose_again()
        if isinstance(error, Cancelled):
            return
        if isinstance(error, DeviceLostError):
            return self._fail_all(error)
        unclear = was_ahead and isinstance(error, NumericError)  # the next run shows whose logits are no numbers
        if len(tasks) == 1 and not unclear:
            return self._fail(tasks[0], error, whole=not isinstance(error, LacewingError))
        if not unclear:
            self.counters.faults += 1
            self.last_fault = error
        for task in tasks:
            task.plain, task.suspect = True, not unclear
            if was_ahead and self.pages.fixed:  # a device that was further ahead has written to the units that were read
                self._preempt(task, first=False, whole=False)

    @staticmethod
    def _by_turns(tasks: list[Task]) -> list[Task]:
        """Of those that want to run the first suspect alone, if there is one."""
        suspect = next((task for task in tasks if task.suspect), None)
        return tasks if suspect is None else [suspect]

    def _fail_all(self, error: Exception) -> None:
        """Nothing can run any more."""
        self._welcome()
        for task in (*self.running, *self.waiting):
            self._fail(task, error, whole=False)
        self.forget()

    @property
    @abstractmethod
    def is_ahead(self) -> bool:
        """Whether the device chooses tokens ahead of the host."""
