"""Brings experts and latent attention into one form, without a copy: an expert is a byte range of its file.

Files hold experts stacked, or one tensor an expert, or gate and up in one stack; KV matrices of latent attention
separate or in one. The program knows stacks (E, out, in) and matrices a head only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from lacewing.errors import WeightError
from lacewing.formats.checkpoint import ByteRange, TensorInfo
from lacewing.models.config import AltUpConfig, IndexerConfig, ModelConfig
from lacewing.models.recurrent import arrange_recurrent
from lacewing.quants import by_name

_ONE_EXPERT = re.compile(r"^(blk\.\d+\.ffn_(?:gate|up|down))(?:_exps)?\.(\d{1,5})\.(weight|weight_scale_inv)$")
_SCALES = "weight_scale_inv"
_PACKED = re.compile(r"_exps\.(weight|weight_scale_inv)$")
_NEED_SCALES = ("F8_E4M3", "F4_E2M1")
PACKED_BLOCK = (1, 32)  # rows and columns that share a factor in MXFP4
BY_SHAPE = (0, 0)  # one factor for each weight, or for each of its rows, or for blocks of the usual size: as many as there are
_USUAL_BLOCK = (128, 128)
_OF_KEYS = re.compile(r"^blk\.(\d{1,6})\.attn_(?:[kv]|k_norm)\.(?:weight|weight_scale_inv|bias)$")
_MOST_SPREAD = 2**16  # ranges of one tensor
_NORM_OF_HEADS = re.compile(r"^(blk\.\d+\.attn_[qk]_norm)(?:\.(\d{1,5}))?\.weight$")
_LAYER = re.compile(r"^(?:blk|(?:\w+\.)*layers)\.(\d{1,6})\.")


def arrange(tensors: Mapping[str, TensorInfo], config: ModelConfig, where: str) -> dict[str, TensorInfo]:
    """The tensors as the program wants them. Raises WeightError for experts that do not fit together."""
    found = arrange_recurrent(tensors, config, where)
    if config.mixture is not None and config.mixture.shared_gate:
        found = {name: _one_row(name, tensor) for name, tensor in found.items()}
    if config.predicting_layers:
        found = {name: tensor for name, tensor in found.items() if not _predicts(name, config)}
    if config.altup is not None:
        found = _streams_apart(found, config.altup, config.width, where)
    found = {name: tensor for name, tensor in found.items() if not _is_shared(name, config)}
    if config.mixture is not None:
        found = _stack_experts({name: _flat_bias(name, tensor) for name, tensor in found.items()}, config.mixture.experts, where)
        if not config.mixture.one_stack:
            for name in [name for name in found if name.endswith(".ffn_gate_up_exps.weight")]:
                rows, parts = (config.mixture.width,) * 2, ("ffn_gate_exps", "ffn_up_exps")
                _divide_scales(found, name, config.mixture.experts, rows, parts, config, where)
                _divide(found, name, config.mixture.experts, rows, parts, where)
    if config.latent is not None and config.latent.indexer is not None:
        found = {name: tensor for name, tensor in found.items() if not _shares_index(name, config.latent.indexer)}
    if config.latent is not None:
        for name in [name for name in found if name.endswith(".attn_kv_b.weight")]:
            rows, parts = (config.latent.nope, config.latent.value), ("attn_k_b", "attn_v_b")
            _divide_scales(found, name, config.heads, rows, parts, config, where)
            _divide(found, name, config.heads, rows, parts, where)
    if config.scale_block == PACKED_BLOCK:
        found = {name: _unpacked(tensor) if _PACKED.search(name) else tensor for name, tensor in found.items()}
    return _with_scales(found, config, where)


def _streams_apart(tensors: dict[str, TensorInfo], altup: AltUpConfig, width: int, where: str) -> dict[str, TensorInfo]:
    """A tensor for each residual stream but the first, which GGUF stacks: altup_proj.0.weight and so on of `altup_proj.weight`."""
    unused = () if altup.scaled else (".altup_correct_scale.weight",)
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(unused)}
    count = altup.streams - 1
    for name in ("altup_proj", "altup_unembd_proj"):
        tensor = found.pop(f"{name}.weight", None)
        if tensor is None:
            continue
        if len(tensor.shape) != 3 or tensor.shape[0] != count or len(tensor.ranges) != 1:
            raise WeightError(f"{where}: weight {name}.weight has shape {tensor.shape}; the model needs {(count, width, width)}")
        whole, nbytes = tensor.ranges[0], tensor.nbytes // count
        for index in range(count):
            ours = f"{name}.{index}.weight"
            part = (ByteRange(whole.path, whole.offset + index * nbytes, nbytes),)
            found[ours] = replace(tensor, name=ours, shape=tensor.shape[1:], ranges=part)
    return found


def _is_shared(name: str, config: ModelConfig) -> bool:
    """Whether a weight makes keys or values in a layer that reads those of another one, as checkpoints have them all the same."""
    match = _OF_KEYS.match(name)
    return match is not None and config.layers - config.shared_kv <= int(match.group(1)) < config.layers


def _flat_norms(tensors: dict[str, TensorInfo], config: ModelConfig, where: str) -> dict[str, TensorInfo]:
    """Weights (heads, C) of the norms of queries and keys as one row; StableLM has one tensor a head."""
    found: dict[str, TensorInfo] = {}
    heads: dict[str, dict[int, TensorInfo]] = {}
    for name, tensor in tensors.items():
        match = _NORM_OF_HEADS.match(name)
        if match and match.group(2):
            heads.setdefault(f"{match.group(1)}.weight", {})[int(match.group(2))] = tensor
        elif match and len(tensor.shape) == 2:
            found[name] = replace(tensor, shape=(tensor.elements,))
        else:
            found[name] = tensor
    for name, parts in heads.items():
        count = config.heads if "attn_q_norm" in name else config.key_heads
        kinds = {(part.shape, part.quant.name, len(part.ranges)) for part in parts.values()}
        if sorted(parts) != list(range(count)) or len(kinds) != 1 or name in found:
            raise WeightError(f"{where}: {name} is not {count} equal norms, one a head")
        ranges = tuple(part for head in range(count) for part in parts[head].ranges)
        found[name] = replace(parts[0], name=name, shape=(sum(part.elements for part in parts.values()),), ranges=ranges)
    return found


def _one_row(name: str, tensor: TensorInfo) -> TensorInfo:
    """(1, D) of the gate of shared experts, which GGUF stores (D,)."""
    if name.endswith(".ffn_gate_inp_shexp.weight") and len(tensor.shape) == 1:
        return replace(tensor, shape=(1, *tensor.shape))
    return tensor


def _flat_bias(name: str, tensor: TensorInfo) -> TensorInfo:
    """(E,) of what a router adds to choose by, which ERNIE stores (1, E)."""
    if name.endswith(".exp_probs_b.bias") and len(tensor.shape) == 2 and tensor.shape[0] == 1:
        return replace(tensor, shape=tensor.shape[1:])
    return tensor


def _unpacked(tensor: TensorInfo) -> TensorInfo:
    """What stands as bytes in an MXFP4 checkpoint: pairs of values (E, rows, columns / 32, 16), powers of two for each 32."""
    if tensor.quant.name != "U8":
        return tensor
    if len(tensor.shape) == 4 and tensor.shape[-1] == 16:
        return replace(tensor, shape=(*tensor.shape[:2], tensor.shape[2] * 32), quant=by_name("F4_E2M1"))
    return replace(tensor, quant=by_name("F8_E8M0"))


def _with_scales(tensors: dict[str, TensorInfo], config: ModelConfig, where: str) -> dict[str, TensorInfo]:
    """Every weight told which tensor has its factors. Raises WeightError for factors that do not fit."""
    found = dict(tensors)
    if config.own_qk_norm:
        found = _flat_norms(found, config, where)
    for name, scales in tensors.items():
        if not name.endswith("." + _SCALES):
            continue
        owner = name.removesuffix("_scale_inv")
        weight = found.get(owner)
        if weight is None or config.scale_block is None or len(weight.shape) not in (2, 3):
            raise WeightError(f"{where}: {name} has factors of a weight that is not there, or the config does not tell of blocks")
        if 0 in weight.shape:
            raise WeightError(f"{where}: {owner} has shape {weight.shape}; a weight must have values")
        for block in _blocks(weight, config.scale_block) if scales.scale_block == (1, 1) else [scales.scale_block]:
            fitting = (*weight.shape[:-2], *(-(-size // part) for size, part in zip(weight.shape[-2:], block, strict=True)))
            if scales.shape == fitting or (config.scale_block == BY_SHAPE and _long(scales.shape) == _long(fitting)):
                found[owner] = replace(weight, scales=name, scale_block=block)
                found[name] = replace(scales, name=name, shape=fitting, scale_block=(1, 1))
                break
        else:
            raise WeightError(f"{where}: {name} has shape {scales.shape}; {weight.shape} in blocks of {block} needs {fitting}")
    bare = [name for name, tensor in found.items() if tensor.quant.name in _NEED_SCALES and tensor.scales is None]
    if bare:
        kind = found[bare[0]].quant
        raise WeightError(f"{where}: {bare[0]} is in {kind}, but no {_SCALES} belongs to it; other forms of {kind} come later")
    return found


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the axes of one, which some files have and others leave out."""
    return tuple(size for size in shape if size != 1)


def _blocks(weight: TensorInfo, declared: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns that may share a factor."""
    rows, columns = weight.shape[-2:]
    return [(rows, columns), (1, columns), _USUAL_BLOCK] if declared == BY_SHAPE else [declared]


def _divide_scales(
    tensors: dict[str, TensorInfo],
    name: str,
    members: int,
    rows: tuple[int, int],
    parts: tuple[str, str],
    config: ModelConfig,
    where: str,
) -> None:
    """The factors of a weight that `_divide` replaces: of the same rows, or, where a member has but one, the same for both."""
    scales, block = name.replace("weight", _SCALES), config.scale_block
    if scales not in tensors or block is None:
        return
    tensor, height = tensors[scales], members * sum(rows)
    if block == BY_SHAPE and tensor.elements in (1, members) and len(tensor.ranges) == 1:
        whole, size = tensor.ranges[0], tensor.quant.block_bytes
        ranges = tuple(
            replace(whole, offset=whole.offset + member * size * (tensor.elements > 1), nbytes=size) for member in range(members)
        )
        for part in parts:
            ours = f"{name.removesuffix('.weight').rpartition('.')[0]}.{part}.{_SCALES}"
            tensors[ours] = replace(tensor, name=ours, shape=(members, 1, 1), ranges=ranges)
        del tensors[scales]
        return
    if block == BY_SHAPE:
        block = _USUAL_BLOCK
        if tensor.elements == height:
            block, tensors[scales] = (1, 1), replace(tensor, shape=(height, 1))
    if any(count % block[0] for count in rows):
        _spread_scales(tensors, name, members, rows, parts, block, where)
    else:
        _divide(tensors, scales, members, (rows[0] // block[0], rows[1] // block[0]), parts, where)


def _spread_scales(
    tensors: dict[str, TensorInfo],
    name: str,
    members: int,
    rows: tuple[int, int],
    parts: tuple[str, str],
    block: tuple[int, int],
    where: str,
) -> None:
    """The same where blocks of factors do not end where the parts do, as in FP8 files of GLM-4.7-Flash: blocks of fewer rows,
    which do; a row of factors then stands for several of them, one after the other."""
    scales, weight, each = name.replace("weight", _SCALES), tensors[name], sum(rows)
    tensor, height = tensors.pop(scales), math.gcd(block[0], *rows)
    alone = len(weight.shape) == 3  # every member begins with a block of its own
    count = members * -(-each // block[0]) if alone else -(-members * each // block[0])
    if len(tensor.ranges) != 1 or len(tensor.shape) not in (2, 3) or math.prod(tensor.shape[:-1]) != count:
        problem = f"has shape {tensor.shape}; {members} times {each} rows in blocks of {block} need {count} rows of factors"
        raise WeightError(f"{where}: {scales} {problem}")
    if members * each // height > _MOST_SPREAD:
        raise WeightError(f"{where}: {scales}: blocks of {block} and parts of {rows} rows have too little in common")
    whole, size = tensor.ranges[0], tensor.quant.row_bytes(tensor.shape[-1])

    def place(member: int, row: int) -> ByteRange:
        index = member * -(-each // block[0]) + row // block[0] if alone else (member * each + row) // block[0]
        return ByteRange(whole.path, whole.offset + index * size, size)

    for part, start, end in zip(parts, (0, rows[0]), (rows[0], each), strict=True):
        ours = f"{name.removesuffix('.weight').rpartition('.')[0]}.{part}.{_SCALES}"
        ranges = tuple(place(member, row) for member in range(members) for row in range(start, end, height))
        shape = (members, (end - start) // height, tensor.shape[-1])
        tensors[ours] = replace(tensor, name=ours, shape=shape, ranges=ranges, scale_block=(height, block[1]))


def predicting_bytes(tensors: Mapping[str, TensorInfo], config: ModelConfig) -> int:
    """Of the layers behind the last one, which `arrange` leaves out."""
    return sum(tensor.nbytes for name, tensor in tensors.items() if _predicts(name, config))


def _predicts(name: str, config: ModelConfig) -> bool:
    """Whether a weight belongs to a layer behind the last one, which predicts tokens further ahead."""
    match = _LAYER.match(name)
    return match is not None and config.layers <= int(match.group(1)) < config.layers + config.predicting_layers


def _shares_index(name: str, indexer: IndexerConfig) -> bool:
    """Whether a weight is of the indexer of a layer that sees what another one chose; some files hold it all the same."""
    match = _LAYER.match(name)
    return match is not None and ".indexer." in name and not indexer.layers[min(int(match.group(1)), len(indexer.layers) - 1)]


def _stack_experts(tensors: Mapping[str, TensorInfo], experts: int, where: str) -> dict[str, TensorInfo]:
    """Tensors of one expert each, joined to stacks; the others as they are."""
    found: dict[str, TensorInfo] = {}
    single: dict[str, dict[int, TensorInfo]] = {}
    for name, tensor in tensors.items():
        match = _ONE_EXPERT.match(name)
        if match is None:
            found[name] = tensor
        else:
            single.setdefault(f"{match.group(1)}_exps.{match.group(3)}", {})[int(match.group(2))] = tensor
    for name, members in single.items():
        if name in found:
            raise WeightError(f"{where}: {name} is there as a whole and as single experts")
        missing = sorted(set(range(experts)) - members.keys())
        surplus = sorted(members.keys() - set(range(experts)))
        if missing or surplus:
            problem = f"lacks expert {missing[0]}" if missing else f"has an expert {surplus[0]}"
            raise WeightError(f"{where}: {name} {problem}; there should be {experts}")
        first = members[0]
        for index, member in members.items():
            if (member.shape, member.quant.name) != (first.shape, first.quant.name) or len(member.ranges) != 1:
                problem = f"expert {index} is {member.quant} {member.shape}, expert 0 {first.quant} {first.shape}"
                raise WeightError(f"{where}: {name}: {problem}; all must be alike")
        ranges = tuple(members[index].ranges[0] for index in range(experts))
        found[name] = TensorInfo(name, (experts, *first.shape), first.quant, ranges)
    return found


def _divide(
    tensors: dict[str, TensorInfo], name: str, members: int, rows: tuple[int, int], parts: tuple[str, str], where: str
) -> None:
    """Replace a weight of `members` slabs by two, of the first and the last rows of every slab."""
    tensor = tensors.pop(name)
    fits = len(tensor.shape) in (2, 3) and len(tensor.ranges) == 1 and math.prod(tensor.shape[:-1]) == members * sum(rows)
    if not fits:
        raise WeightError(f"{where}: weight {name} has shape {tensor.shape}; the model needs {members} times {sum(rows)} rows")
    width, whole = tensor.shape[-1], tensor.ranges[0]
    row_bytes = tensor.quant.row_bytes(width)
    starts = (0, rows[0] * row_bytes)
    for part, count, start in zip(parts, rows, starts, strict=True):
        ranges = tuple(
            ByteRange(whole.path, whole.offset + member * sum(rows) * row_bytes + start, count * row_bytes)
            for member in range(members)
        )
        stem, _, kind = name.rpartition(".")
        ours = f"{stem.rpartition('.')[0]}.{part}.{kind}"
        if ours in tensors:
            raise WeightError(f"{where}: {ours} is there, and {name}, which holds it too")
        tensors[ours] = replace(tensor, name=ours, shape=(members, count, width), ranges=ranges)
