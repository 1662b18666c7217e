"""A Hugging Face config.json to a ModelConfig. References: configuration_*.py and modeling_rope_utils.py of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lacewing.errors import UnsupportedModelError
from lacewing.formats.checkpoint import Checkpoint, TensorInfo
from lacewing.formats.read import mapped
from lacewing.models.architecture import Architecture
from lacewing.models.config import ACTIVATIONS, LatentConfig, ModelConfig
from lacewing.models.readers.factors import read_scale_block
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.readers.mixture import EXPERT_COUNTS, huggingface_mixture, is_mixture
from lacewing.models.rope import RopeConfig, yarn_magnitude

# Keys that say nothing about the maths of a text model at inference.
_HARMLESS = """architectures model_type torch_dtype dtype transformers_version _name_or_path name_or_path auto_map use_cache
initializer_range initializer_factor attention_dropout hidden_dropout embd_pdrop resid_pdrop dropout pretraining_tp bos_token_id
eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id cache_implementation id2label
label2id num_labels problem_type task_specific_params finetuning_task tokenizer_class prefix return_dict output_attentions
output_hidden_states torchscript use_bfloat16 pruned_heads chunk_size_feed_forward is_llama_config transformers.js_config
max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids num_return_sequences
output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens
exponential_decay_length_penalty begin_suppress_tokens tf_legacy_loss _attn_implementation _attn_implementation_autoset
_flash_attn_2_enabled attn_implementation unsloth_version unsloth_fixed keys_to_ignore_at_inference use_flash_attn
gradient_checkpointing use_reentrant_checkpointing neftune_noise_alpha classifier_dropout tokenizer_model_max_length
tokenizer_padding_side seq_length loss_type use_liger_kernel sliding_window_size
vision_config mm_tokens_per_image image_token_index boi_token_index eoi_token_index boi_token_id eoi_token_id image_token_id
vision_soft_tokens_per_image eod_token_id model_max_length model_name max_window_layers original_max_position_embeddings
output_router_logits router_aux_loss_coef router_jitter_noise aux_loss_alpha seq_aux ep_size qk_head_dim""".split()  # noqa: SIM905

# Keys that the classes of transformers declare and that change the maths, though no reader asks for them, with the values that
# change nothing: of every class, and of some, or of the makers' own code. `tools/list_config_keys.py` lists what classes declare.
_DECLARED: dict[str, tuple[Any, ...]] = {"is_decoder": (True,), "is_encoder_decoder": (), "add_cross_attention": ()}
_DECLARED_BY: dict[str, dict[str, tuple[Any, ...]]] = {"olmoe": {"clip_qkv": ()}}
_LAYER_FREQUENCY = ("deepseek", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "kimi_k2", "kimi_linear")
_DECLARED_BY |= {kind: {"moe_layer_freq": (1,)} for kind in _LAYER_FREQUENCY}
# Other keys, with the values that are no news.
_INERT: dict[str, tuple[Any, ...]] = {"full_attn_mod": (1,), "interpolate_factor": (1,), "activation": ("swiglu", "silu"),
                                      "hidden_activation": tuple(ACTIVATIONS)}  # fmt: skip
# multimodal model types whose output is the embedding unless they say otherwise
_TYING = ("gemma3", "gemma3n", "gemma4", "gemma4_unified", "mistral3")

_EXPERTS = (*EXPERT_COUNTS, "moe_intermediate_size", "num_experts_per_tok", "top_k_experts")
_ROPE_KINDS = {"default": "none"} | {kind: kind for kind in ("linear", "dynamic", "yarn", "longrope", "llama3")}
_HARMLESS_OF_ROPE = tuple(
    "finetuned original_max_position_embeddings max_position_embeddings factor mrope_section mrope_interleaved".split()  # noqa: SIM905
)
_LAYER_KINDS = ("full_attention", "sliding_attention")


def text_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """config.json, or the language part of a multimodal one. Raises UnsupportedModelError."""
    config = checkpoint.metadata.get("config.json")
    if not isinstance(config, Mapping):
        raise UnsupportedModelError(f"{checkpoint.path}: config.json is missing or not a dictionary, so the model is unknown")
    inner = config.get("text_config")
    if inner is None:
        return config
    if not isinstance(inner, Mapping):
        raise UnsupportedModelError(f"{checkpoint.path}: text_config of config.json is not a dictionary")
    outer = {name: config[name] for name in ("model_type", "quantization_config") if name in config}
    return {**outer, **inner}


def read_huggingface(
    checkpoint: Checkpoint, architecture: Architecture, tensors: Mapping[str, TensorInfo]
) -> tuple[ModelConfig, list[str]]:
    """The config, and notices. `tensors`: under our names.

    Raises UnsupportedModelError for a key out of bounds, or for one that means something to transformers and nothing to us.
    """
    values = architecture.usual(text_config(checkpoint))
    kind = str(values.get("model_type"))
    where = f"{checkpoint.path.name}/config.json"
    defaults = architecture.defaults.get(kind, {})
    keys = MetadataReader(values, where, defaults, synonyms=architecture.synonyms, weights=tensors, whole=checkpoint.whole)
    embedding = tensors.get("token_embd.weight")
    able = architecture.mixture is not None and is_mixture(keys, architecture.mixture_key)
    mixed = able and not (architecture.hybrid and keys.get("num_local_experts") == 0)
    scale_block = read_scale_block(keys, architecture)
    _refuse_unsupported(keys, able)
    layers = keys.integer("num_hidden_layers", _listed_layers(values), high=1024)
    width, heads = keys.integer("hidden_size"), _heads(keys, architecture.latent)
    latent = _latent(keys) if architecture.latent else None
    key_heads = keys.integer("num_key_value_heads", heads)
    head_width = keys.integer("head_dim", max(width // heads, 1), high=2**16)
    if latent is not None:
        head_width = latent.nope + latent.rope
    trained = keys.integer("max_position_embeddings", high=2**31)
    rope, local_rope = _ropes(keys, head_width, trained)
    feed_forwards = keys.integers("intermediate_size", layers)
    config = ModelConfig(
        architecture=architecture.name,
        layers=layers,
        width=width,
        heads=heads,
        key_heads=key_heads if latent is None else 1,
        head_width=head_width,
        feed_forward=feed_forwards[0],
        feed_forwards=feed_forwards if len(set(feed_forwards)) > 1 else (),
        vocab_size=_vocab_size(keys, embedding),
        trained_context=trained,
        eps=keys.number("rms_norm_eps", low=1e-20, high=1),
        rope=rope,
        local_rope=local_rope,
        windows=_windows(keys, layers),
        attention_scale=head_width**-0.5,
        activation=_activation(keys),
        tied_output=_tied(keys, checkpoint, tensors),
        biases=architecture.biases | _biases(keys),
        scale_block=scale_block,
        latent=latent,
        mixture=huggingface_mixture(keys, layers, architecture.mixture or {}) if mixed else None,
        predicting_layers=keys.integer("num_nextn_predict_layers", 0, low=0, high=64) if mixed else 0,
    )
    switches = {**architecture.switches, **architecture.huggingface_switches}
    config = architecture.huggingface(keys, replace(config, **switches))
    if config.rope.query_beta and config.attention_temperature is None:
        raise keys.error("llama_4_scaling_beta", "is set, which this version does not know for this architecture")
    _judge_the_rest(keys, _DECLARED | _DECLARED_BY.get(kind, {}))
    return config, keys.notices


def _judge_the_rest(keys: MetadataReader, declared: Mapping[str, tuple[Any, ...]]) -> None:
    """Keys that no reader asked for: refused if they may change the maths, else told of."""
    unread = keys.unread(_HARMLESS)
    keys.refuse_unknown({name: value for name, value in unread.items() if name in declared}, declared)
    keys.tell_of(name for name, value in unread.items() if name not in declared and value not in _INERT.get(name, ()))


def _listed_layers(values: Mapping[str, Any]) -> int | None:
    """As many as are named one by one, which some configs leave it at."""
    listed = values.get("layers_block_type") or values.get("hybrid_override_pattern")
    return len(listed) if isinstance(listed, list | str) else None


def _vocab_size(keys: MetadataReader, embedding: TensorInfo | None) -> int:
    """Rows of the embedding; the key may be stale."""
    named = keys.integer("vocab_size")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[0] == named:
        return named
    keys.notices.append(f"{keys.where}: vocab_size is {named}, but the embedding has {embedding.shape[0]} rows, which hold")
    return embedding.shape[0]


def _tied(keys: MetadataReader, checkpoint: Checkpoint, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether the embedding is the output as well: a head of the checkpoint is the output, whatever the config says.

    So does transformers 5 where the two differ, and whether a config around the text's or the text's own decides differs from
    version to version: without a head, either does.
    """
    outer = checkpoint.metadata["config.json"]
    around = MetadataReader(outer, keys.where)
    tied = keys.flag("tie_word_embeddings") or around.flag("tie_word_embeddings")
    head, embedding = tensors.get("output.weight"), tensors.get("token_embd.weight")
    if head is None or embedding is None:
        unsaid = "tie_word_embeddings" not in keys and "tie_word_embeddings" not in around
        return tied or (unsaid and outer.get("model_type") in _TYING)
    if tied and checkpoint.whole and _differ(head, embedding, checkpoint):
        keys.notices.append(f"{keys.where}: tie_word_embeddings is true, but lm_head.weight is not the embedding; it is used")
    return False


def _differ(one: TensorInfo, other: TensorInfo, checkpoint: Checkpoint) -> bool:
    """Whether two tensors are other than copies, by samples: it is a notice, not the maths, that depends on it."""
    if (one.shape, one.quant.name, len(one.ranges)) != (other.shape, other.quant.name, len(other.ranges)):
        return True
    pair = [mapped(tensor.ranges[0], checkpoint.identities.get(tensor.ranges[0].path)) for tensor in (one, other)]
    starts = range(0, len(pair[0]), max(1, len(pair[0]) // 64))
    return any((pair[0][start : start + 4096] != pair[1][start : start + 4096]).any() for start in starts)


def _latent(keys: MetadataReader) -> LatentConfig:
    nope, rope, value = (keys.integer(name, high=2**16) for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    q_rank, rank = keys.optional_integer("q_lora_rank", high=2**24), keys.integer("kv_lora_rank")
    return LatentConfig(q_rank, rank, nope, rope, value, eps=1e-6, transposed_keys=True)  # the class's own eps, not the config's


def _refuse_unsupported(keys: MetadataReader, mixed: bool) -> None:
    for name in () if mixed else _EXPERTS:
        if keys.get(name):
            raise keys.error(name, f"is {keys.get(name)!r}: mixture-of-experts comes later; this version runs dense models")
    if keys.get("use_bidirectional_attention") != "vision" and keys.flag("use_bidirectional_attention"):  # that of images alone
        raise keys.error("use_bidirectional_attention", "is true; this version runs causal models only")


def _heads(keys: MetadataReader, latent: bool) -> int:
    heads, width = keys.integer("num_attention_heads", high=2**16), keys.integer("hidden_size")
    if width // heads < 1 or (keys.get("head_dim") is None and not latent and width % heads):
        raise keys.error("num_attention_heads", f"is {heads}, which does not divide hidden_size {width}")
    return heads


def _biases(keys: MetadataReader) -> set[str]:
    attention = ("attn_q", "attn_k", "attn_v", "attn_output") if keys.flag("attention_bias") else ()
    return {*attention, *(("ffn_gate", "ffn_up", "ffn_down") if keys.flag("mlp_bias") else ())}


def _activation(keys: MetadataReader) -> str:
    """hidden_activation is the newer name, of the gemma family alone."""
    keys.get("hidden_act")
    name = "hidden_activation" if "hidden_activation" in keys and "activations" in keys.defaults else "hidden_act"
    return keys.choice(name, {**ACTIVATIONS, **keys.defaults.get("activations", {})})


def _windows(keys: MetadataReader, layers: int) -> tuple[int | None, ...]:
    """layer_types where given, else a pattern (every n-th layer sees everything), else from max_window_layers on."""
    window = keys.integer("sliding_window", 0, low=0, high=2**31) or None
    if not keys.flag("use_sliding_window", True):
        window = None
    kinds, letters = keys.get("layer_types"), keys.get("sliding_window_pattern")
    lettered = isinstance(letters, str) and 0 < len(letters) <= layers and set(letters) <= {"L", "G"}  # local or global, repeated
    pattern = None if lettered else keys.optional_integer("sliding_window_pattern")
    pattern = keys.optional_integer("_sliding_window_pattern") or pattern
    if kinds is not None:
        known = (*_LAYER_KINDS, *keys.defaults.get("layer_kinds", ()))
        local = [kind == "sliding_attention" for kind in keys.words("layer_types", layers, known)]
        if any(local) and window is None:
            raise keys.error("layer_types", "has sliding layers but there is no sliding_window")
    elif lettered:
        local = [letters[layer % len(letters)] == "L" for layer in range(layers)]
    elif pattern:
        local = [(layer + 1) % pattern != 0 for layer in range(layers)]
    else:
        first = keys.integer("max_window_layers", 0, low=0)
        local = [layer >= first for layer in range(layers)]
    return tuple(window if is_local else None for is_local in local)


def _ropes(keys: MetadataReader, head_width: int, trained: int) -> tuple[RopeConfig, RopeConfig]:
    """The rotation of layers that see everything and of windowed layers."""
    older, newer = keys.nested("rope_scaling"), keys.nested("rope_parameters")
    parameters = older if older is not None and older.values else newer or MetadataReader({}, keys.where)
    nested = newer is not None and any(kind in newer for kind in _LAYER_KINDS)
    if not nested:
        rope = _rope(keys, parameters, head_width, trained, "rope_theta")
        local_base = keys.optional_number("rope_local_base_freq", low=1e-6, high=1e18)
        return rope, rope if local_base is None else RopeConfig(rope.width, local_base)
    found = []
    for kind, theta in (("full_attention", "rope_theta"), ("sliding_attention", "rope_local_base_freq")):
        inner = (newer.nested(kind) if newer else None) or MetadataReader({}, keys.where)
        found.append(_rope(keys, inner, head_width, trained, theta if keys.get(theta) is not None else "rope_theta"))
    return found[0], found[1]


def _rope(keys: MetadataReader, parameters: MetadataReader, head_width: int, trained: int, theta: str) -> RopeConfig:
    """One rotation from its dictionary; `theta` names the older key of the base."""
    base = parameters.number("rope_theta", keys.number(theta, 10000, low=1e-6, high=1e18), low=1e-6, high=1e18)
    partial = parameters.number("partial_rotary_factor", keys.number("partial_rotary_factor", 1, low=0, high=1), low=0, high=1)
    kinds = {**_ROPE_KINDS, **keys.defaults.get("rope_kinds", {})}
    kind = parameters.choice("rope_type" if "rope_type" in parameters else "type", kinds, "default")
    parameters.get("type")
    rope = RopeConfig(int(head_width * partial), base, kind)
    if kind == "proportional":
        rope = RopeConfig(head_width, base, kind, parameters.number("factor", 1, low=1e-3, high=1e9), turning=partial)
    elif kind == "dynamic" and keys.defaults.get("rope_alpha") and parameters.get("alpha"):  # a base of its own, of Hunyuan
        alpha = parameters.number("alpha", low=1e-6, high=1e9)
        rope = replace(rope, kind="none", base=base * alpha ** (rope.width / max(rope.width - 2, 1)))
        for name in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim"):  # without a meaning here
            parameters.get(name)
    elif kind != "none":
        rope = _scaled(keys, parameters, rope, trained)
    parameters.tell_of(parameters.unread(_HARMLESS_OF_ROPE))  # transformers leaves them alone, too
    return rope


def _scaled(keys: MetadataReader, parameters: MetadataReader, rope: RopeConfig, trained: int) -> RopeConfig:
    original = parameters.integer("original_max_position_embeddings", trained, high=2**31)
    if rope.kind == "dynamic":  # transformers stretches from max_position_embeddings on
        original = trained
    original = keys.integer("original_max_position_embeddings", original, high=2**31)
    ratio = trained / original if rope.kind in ("yarn", "longrope") else None
    factor = parameters.number("factor", ratio, low=1e-3, high=1e9)
    rope = replace(rope, factor=factor, original_context=original)
    if rope.kind in ("yarn", "longrope"):
        rope = replace(rope, magnitude=parameters.optional_number("attention_factor", low=1e-6, high=1e6))
    if rope.kind == "llama3":
        low, high = (parameters.number(f"{name}_freq_factor", low=1e-3, high=1e6) for name in ("low", "high"))
        return replace(rope, low_factor=low, high_factor=high)
    if rope.kind == "longrope":
        long, short = (parameters.numbers(f"{name}_factor", rope.width // 2) for name in ("long", "short"))
        return replace(rope, long_divisors=long, short_divisors=short)
    if rope.kind == "yarn":
        scales = [parameters.number(name, 0, low=0, high=1e3) for name in ("mscale", "mscale_all_dim")]
        if rope.magnitude is None and all(scales):
            rope = replace(rope, magnitude=yarn_magnitude(factor, scales[0]) / yarn_magnitude(factor, scales[1]))
        beta = parameters.number("llama_4_scaling_beta", 0, low=0, high=1e3)
        rope = replace(rope, log_multiplier=scales[1], query_beta=beta)
        fast, slow = parameters.number("beta_fast", 32, low=0, high=1e6), parameters.number("beta_slow", 1, low=0, high=1e6)
        return replace(rope, beta_fast=fast or 32, beta_slow=slow or 1, truncate=parameters.flag("truncate", True))
    return rope
