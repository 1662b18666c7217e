"""The lock of an engine: fair, and a thread may take it again."""

import threading
import time

from lacewing.engine.turn import Turn


def test_whoever_asks_gets_it_before_the_one_that_has_just_had_it():
    """A plain lock goes back to the thread that asks at once, thousands of times."""
    turn, began, had, done = Turn(), threading.Event(), [], threading.Event()

    def busy():
        while not done.is_set():
            with turn:
                had.append(None)
                began.set()
                time.sleep(0.02)

    thread = threading.Thread(target=busy)
    thread.start()
    began.wait()
    for _ in range(5):
        before = len(had)
        with turn:
            assert len(had) - before <= 2
    done.set()
    thread.join()


def test_a_thread_may_take_it_again_and_an_error_gives_it_back():
    turn, found = Turn(), []
    try:
        with turn, turn:
            raise KeyError
    except KeyError:
        pass
    thread = threading.Thread(target=lambda: turn.__enter__() or found.append(turn.__exit__(None, None, None)))
    thread.start()
    thread.join(5)
    assert found == [None]


class Interrupted:
    """A lock that is taken, and then somebody presses Ctrl-C."""

    def __init__(self, lock):
        self.lock, self.presses = lock, 1
        self.release = lock.release

    def acquire(self):
        self.lock.acquire()
        if self.presses:
            self.presses -= 1
            raise KeyboardInterrupt


def test_an_interrupt_just_after_it_was_taken_does_not_hang_the_thread():
    """Ctrl-C reaches Python code between any two steps; closing the model afterwards takes the turn again."""
    turn, done = Turn(), []

    def work():
        turn._lock = Interrupted(turn._lock)
        try:
            with turn:
                done.append("not reached")
        except KeyboardInterrupt:
            pass
        with turn:
            done.append("again")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    assert done == ["again"]
