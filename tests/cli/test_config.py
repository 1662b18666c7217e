"""Options that the environment and the configuration file set, below those of the command line."""

import json
import sys

import pytest

from lacewing.cli import main
from lacewing.cli.config import MAX_BYTES
from lacewing.options import LoadOptions, Sampling


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "lacewing" / "config.toml"
    path.parent.mkdir()
    return path


@pytest.fixture
def called(monkeypatch):
    """The arguments that the work of `run` or `chat` is given."""

    def call(command, *words):
        seen = {}
        monkeypatch.setattr(f"lacewing.cli.run.{command}", lambda *given, **named: seen.update(given=given, **named))
        monkeypatch.setattr(sys, "argv", ["lacewing", command, *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return seen

    return call


def test_the_line_goes_before_the_environment_and_this_before_the_file(called, file, monkeypatch):
    assert called("chat")["given"][1:] == (LoadOptions(), Sampling())
    file.write_text("top-k = 7\ntop_p = 0.5\ntemperature = 1\nthreads = 2\nmemory = '3GiB'\nstop = ['a', '--b']\n")
    expected = Sampling(temperature=1.0, top_k=7, top_p=0.5, stop=("a", "--b"))
    assert called("chat")["given"][1:] == (LoadOptions(threads=2, memory_bytes=3 << 30), expected)
    monkeypatch.setenv("LACEWING_TOP_K", "8")
    monkeypatch.setenv("LACEWING_MEMORY", "4GiB")
    monkeypatch.setenv("LACEWING_TOP_P", "")  # nothing
    options, sampling = called("chat")["given"][1:]
    assert (options.memory_bytes, sampling.top_k, sampling.top_p) == (4 << 30, 8, 0.5)
    options, sampling = called("chat", "--memory=5GiB", "--top-k", "9", "--stop", "c")["given"][1:]
    assert (options.memory_bytes, sampling.top_k, sampling.stop) == (5 << 30, 9, ("c",))


def test_a_residency_that_no_line_names_is_for_all_models(called, file, monkeypatch):
    def options(*words):
        return called("chat", "smollm2", *words)["given"][1]

    file.write_text("residency = 'streamed'\n")
    assert options() == LoadOptions(residency="streamed", residency_is_default=True)
    assert options("--residency", "streamed") == LoadOptions(residency="streamed")
    file.write_text("")
    monkeypatch.setenv("LACEWING_RESIDENCY", "lazy")
    assert (
        options() == LoadOptions(residency="lazy", residency_is_default=True)
        and not options("--residency=auto").residency_is_default
    )


def test_tables_are_for_one_command_and_go_first(called, file):
    file.write_text('temperature = 0.1\nraw = true\n[run]\nraw = false\nseed = 4\n[chat]\ntemperature = 0.2\nsystem = "Hi"\n')
    assert called("run", "smollm2", "x")["given"][2] == Sampling(temperature=0.1, seed=4) and not called("run")["raw"]
    request, _, sampling = called("chat", "smollm2")["given"]
    assert sampling == Sampling(temperature=0.2) and request.system == "Hi"


def test_the_default_model(called, file, monkeypatch):
    assert called("run", "two words")["given"][0].model == called("chat")["given"][0].model == "smollm2"
    file.write_text('model = "gemma3-270m"\n[chat]\nmodel = "hf:owner/repo"\n')
    assert called("run", "two words")["given"][0].model == "gemma3-270m" and called("chat")["given"][0].model == "hf:owner/repo"
    monkeypatch.setenv("LACEWING_MODEL", "pypi:package")
    assert called("chat")["given"][0].model == called("run")["given"][0].model == "pypi:package"
    for words in (("smollm2", "Hi"), ("-m", "smollm2", "Hi")):
        request = called("run", *words)["given"][0]
        assert (request.model, request.prompt) == ("smollm2", "Hi")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature = \n", "line 1"),
        ("seed = 1\ntemprature = 0.5\n", "line 2: there is no option 'temprature'; did you mean temperature?"),
        ("zzz = 1\n", "line 1: there is no option 'zzz'; `lacewing config` lists the options"),
        ("seed = 1\n\n[chatt]\nseed = 1\n", "line 3: there is no command 'chatt' for a table; did you mean chat?"),
        ("[bench]\ntemperature = 1\n", "line 2: there is no option 'temperature' of bench"),
        ("top_k = 'many'\n", "line 1: top_k is 'many'; it must be a whole number"),
        ("top_k = 1.5\n", "line 1: top_k is 1.5; it must be a whole number"),
        ("top_k = true\n", "line 1: top_k is True; it must be a whole number"),
        ("raw = 'yes'\n", "line 1: raw is 'yes'; it must be true or false"),
        ("memory = true\n", "line 1: memory is True; it must be text"),
        ("stop = [1979-05-27, {a = 1}]\n", "line 1: stop is"),
        ("\ntemperature = -1\n", "line 2: temperature is -1"),
        ("memory = 'lots'\n", "line 1: memory is 'lots'; it must be a size"),
        ("residency = 'fast'\n", "line 1: residency is 'fast'"),
        ("seed = 1\nseed = 2\n", "line 2"),
        ("[run]\nseed = 1\n[chat]\nseed = 'x'\n", "line 4: seed is 'x'"),
        ("[run]\nseed = 1\n[tokenise]\nspecial = 'x'\n", "line 4: special is 'x'"),
        ("x = " + "[" * 9000, "cannot be read"),
        ("temperature = 1" + "0" * 400, "line 1: temperature is an integer of 1329 bits; it must be a number"),
        ("temperature = " + "9" * 5000, "cannot be read"),
        ("temperature = 'x" + "y" * 100_000 + "'", "it must be a number"),
        ("stop = [[" + "'x', " * 10_000 + "]]", "it must be texts"),
        ("temperature = [1, 2]", "line 1: temperature is [1, 2]; it must be a number"),
        ("top-k = 1\ntop_k = 2", "line 2: 'top_k' sets top_k, which the file has set before"),
        ("[run]\ncolor = 'never'\ncolour = 'always'", "line 3: 'colour' sets color, which the file has set before"),
        ("# " + "x" * MAX_BYTES, "at most"),
    ],
)
def test_a_bad_file_is_an_error_with_its_line(lacewing, file, text, message):
    file.write_text(text)
    for words in (("run", "smollm2", "x"), ("list",), ("config",)):
        code, out, err = lacewing(*words)
        assert (code, out) == (2, "") and str(file) in err and message in err and err.count("\n") == 1 and len(err) < 1000
    assert lacewing("--version")[0] == lacewing("completion", "bash")[0] == lacewing("--help")[0] == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TOP_K", "many", "LACEWING_TOP_K is 'many'; it must be a whole number"),
        ("TEMPERATURE", "-3", "LACEWING_TEMPERATURE: temperature is -3"),
        ("RAW", "perhaps", "LACEWING_RAW is 'perhaps'; it must be true or false"),
        ("CONFIG", "/no/such/file.toml", "there is no file /no/such/file.toml"),
    ],
)
def test_a_bad_variable_is_an_error_with_its_name(lacewing, monkeypatch, name, value, message):
    monkeypatch.setenv(f"LACEWING_{name}", value)
    code, out, err = lacewing("run", "smollm2", "x")
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_a_file_of_another_kind_or_encoding(lacewing, file, tmp_path, monkeypatch):
    file.write_bytes(b"\xff\xfe\x00")
    assert lacewing("list")[0] == 2
    file.unlink()
    file.mkdir()
    assert "not a regular file" in lacewing("list")[2]
    monkeypatch.setenv("LACEWING_CONFIG", str(tmp_path / "own.toml"))
    (tmp_path / "own.toml").write_bytes(b"\xef\xbb\xbfseed = 5\r\n")
    assert lacewing("list")[0] == 0


def test_config_tells_where_what_and_from_where(lacewing, file, monkeypatch):
    assert f"configuration file: {file} (does not exist)" in lacewing("config")[1]
    file.write_text("colour = 'never'\nseed = 3\n[chat]\nseed = 4\n")
    monkeypatch.setenv("LACEWING_TOP_K", "8")
    monkeypatch.setenv("LACEWING_CACHE", "/somewhere")
    out = lacewing("config")[1]
    assert f"configuration file: {file}\n" in out and "does not exist" not in out
    facts = json.loads(lacewing("config", "--json")[1])
    rows = {row["name"]: row for row in facts["options"]}
    assert (rows["top_k"]["value"], rows["top_k"]["from"]) == ("8", "LACEWING_TOP_K")
    assert (rows["seed"]["value"], rows["seed"]["from"]) == ("3", f"{file}, line 2")
    assert (rows["chat.seed"]["value"], rows["chat.seed"]["from"]) == ("4", f"{file}, line 4")
    assert (rows["color"]["value"], rows["temperature"]["value"], rows["temperature"]["from"]) == ("never", "0.8", "default")
    assert rows["model"]["value"] == "smollm2" and "auto, lazy" in rows["residency"]["allowed"]
    assert {"name": "LACEWING_CACHE", "value": "/somewhere"}.items() <= facts["variables"][1].items()
    assert facts["file"] == str(file) and facts["exists"]


def test_an_empty_value_is_shown_as_empty(lacewing, file):
    file.write_text("system = ''\nquiet = true\n")
    rows = {row["name"]: row["value"] for row in json.loads(lacewing("config", "--json")[1])["options"]}
    assert (rows["system"], rows["quiet"]) == ("", "on")


def test_a_folder_that_may_not_be_entered_is_named(lacewing, file, monkeypatch):
    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(file), "exists", refused)
    code, _, err = lacewing("list")
    assert code == 1 and err == f"lacewing: cannot use {file}: Permission denied\n"
