"""docs/commands.md and /help are the table of commands."""

import importlib.util
import re
from pathlib import Path

from lacewing.chat.commands.table import load_commands, run_line

ROOT = Path(__file__).parents[3]


def tool():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_configuration_is_current():
    made = tool().configuration()
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == made, "python tools/make_docs.py"


def test_every_variable_of_the_source_is_on_the_page():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = {name for name in re.findall(r"\bLACEWING_[A-Z_]*[A-Z]", sources) if not name.startswith("LACEWING_COMPLETE")}
    assert named >= {"LACEWING_CACHE", "LACEWING_CONFIG"}
    assert all(f"`{name}`" in tool().configuration() for name in named)


def test_the_page_is_current():
    made = tool().page()
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == made, "run python tools/make_docs.py"


def test_every_command_is_told():
    table, page = load_commands(), tool().page()
    shown = [row[0] for each in run_line(None, "/help").data for row in each.rows]
    assert sorted(shown) == sorted(row.short for row in table.rows.values())
    for row in table.rows.values():
        assert row.summary.endswith((".", ":")), row.name
        assert f"### `{row.usage}`" in page
        assert run_line(None, f"/help {row.name}").text.startswith(row.usage)
        for alias in row.aliases:
            assert f"`/{alias}`" in page and table.find(alias) is row
