"""What a person chooses, at the edges of what is taken."""

import numpy as np
import pytest

from lacewing.errors import OptionError
from lacewing.options import LoadOptions, Sampling, counted, format_bytes, make_sampling, parse_bytes, parse_layers


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("4GiB", 4 << 30), ("800MB", 800_000_000), ("1.5g", 1_500_000_000), (" 7 kib ", 7168), ("12", 12), (12, 12), (None, None)],
)
def test_sizes(text, nbytes):
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", 0, -5, "1e9", "4XB", "nan", True, "9" * 30, "1 2", "0.2"])
def test_what_is_no_size(text):
    with pytest.raises(OptionError, match="is not a size"):
        parse_bytes(text)


def test_types_of_the_kv_cache():
    assert [LoadOptions(kv_type=each).kv_type for each in (None, "f16", "f32", "q8_0")] == [None, "f16", "f32", "q8_0"]
    with pytest.raises(OptionError, match="kv_type is 'q4_0'; it must be one of f16, f32, q8_0"):
        LoadOptions(kv_type="q4_0")


def test_layers():
    assert [parse_layers(each) for each in (None, "auto", "20", 0)] == [None, None, 20, 0]
    for wrong in ("-1", "1.5", True, "many", "9" * 9):
        with pytest.raises(OptionError, match="number of layers"):
            parse_layers(wrong)


def test_sizes_for_people():
    assert [format_bytes(count) for count in (0, 1023, 1024, 3 << 30, 5 << 40, -2048)] == [
        *("0 B", "1023 B", "1.0 KiB", "3.0 GiB", "5.0 TiB", "-2.0 KiB"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "range"),
    [
        ("seed", 2**63, "from 0 to 9223372036854775807"),
        pytest.param("seed", 10**5000, "an integer of 16610 bits; it must be an integer", id="too long to be written"),
        ("temperature", 10**400, "an integer of 1329 bits; it must be a number"),
        ("temperature", float("nan"), "a number from 0 to 100"),
        ("top_p", float("inf"), "inf; it must be a number from 0 to 1"),
        ("repeat_penalty", 0, "from 0.01 to 100"),
        ("top_k", 1.5, "an integer from 0 to 2147483648"),
        ("max_tokens", True, "an integer from 0"),
        ("logit_bias", {-1: 0.0}, "logit_bias token is -1"),
        ("stop", ("",), "text of 1 to 256 characters"),
    ],
)
def test_the_message_names_the_range(field, value, range):
    with pytest.raises(OptionError, match=range):
        Sampling(**{field: value})
    assert Sampling(seed=2**63 - 1).seed == 2**63 - 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("residency", "streamed"),
        ("context", 0),
        ("threads", 1025),
        ("memory_bytes", 2**61),
        ("gpu_layers", -1),
        ("gpu_memory_bytes", 0),
    ],
)
def test_options_of_loading(field, value):
    with pytest.raises(OptionError, match=field.removesuffix("_bytes")):
        LoadOptions(**{field: value})


def test_numbers_of_numpy_are_numbers():
    options = {
        "seed": np.int64(3),
        "temperature": np.float32(0.5),
        "max_tokens": np.uint8(4),
        "logit_bias": {np.int64(5): np.float32(1)},
    }
    made = make_sampling(options)
    assert made == Sampling(seed=3, temperature=0.5, max_tokens=4, logit_bias={5: 1.0})
    assert {type(value) for value in (made.seed, made.temperature, *made.logit_bias)} == {int, float}
    for wrong in ({"temperature": np.float32("nan")}, {"seed": np.int64(-1)}, {"top_k": np.bool_(True)}, {"seed": np.arange(2)}):
        with pytest.raises(OptionError):
            make_sampling(wrong)


def test_unknown_options_of_sampling_are_named():
    assert make_sampling({"stop": "end"}).stop == ("end",) and make_sampling({"stop": None}).stop == ()
    with pytest.raises(OptionError, match="'temprature' is not a sampling option"):
        make_sampling({"temprature": 1})
    with pytest.raises(OptionError, match="stop must be a string"):
        make_sampling({"stop": 5})


def test_counted_forms_agree():
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert (counted(1, "entry", "entries"), counted(3, "entry", "entries")) == ("1 entry", "3 entries")
