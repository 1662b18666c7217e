import gguf

from lacewing.options import LoadOptions
from lacewing.placement.info import FILE_TYPES, ModelInfo


def test_mixtures_of_quants_have_llama_cpps_names():
    theirs = {each.value: each.name.partition("_")[2] for each in gguf.LlamaFileType}
    assert all(theirs[number] == name for number, name in FILE_TYPES.items())
    assert {name for name in theirs.values() if name.endswith(("_S", "_M", "_L"))} <= {*FILE_TYPES.values()}


def test_the_quant_is_what_the_file_says_or_what_most_bytes_are(tiny_path):
    info = ModelInfo(tiny_path, LoadOptions(), warm=False)
    assert info.quant == "Q4_0"
    info.checkpoint.metadata["general.file_type"] = 15
    assert info.quant == "Q4_K_M"
