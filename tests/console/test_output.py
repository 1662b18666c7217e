import io
import signal

import pytest

from lacewing.console.interrupt import Interrupt
from lacewing.console.output import Output


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_second_ctrl_c_means_it():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_control_characters_do_not_reach_a_terminal():
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        Output(stream).write("a\x1b[2Jb\tc\r\n\x9b\u202e")
    mark = "\N{REPLACEMENT CHARACTER}"
    assert terminal.getvalue() == f"a{mark}[2Jb\tc\n{mark}{mark}"
    assert pipe.getvalue() == "a\x1b[2Jb\tc\r\n\x9b\u202e"
