"""gpt-oss as Ollama stores it: some names of its own, gate and up by turns in one weight, no word on the kind of RoPE scaling.

Reference: Ollama's model/models/gptoss and convert/convert_gptoss.go.
"""

from dataclasses import replace

from lacewing.models.architectures import gpt_oss

ARCHITECTURE = replace(
    gpt_oss.ARCHITECTURE,
    name="gptoss",
    models="gpt-oss as Ollama stores it",
    gguf_names={
        "blk.*.attn_out.weight": "blk.*.attn_output.weight",
        "blk.*.attn_out.bias": "blk.*.attn_output.bias",
        "blk.*.ffn_norm.weight": "blk.*.post_attention_norm.weight",
        "blk.*.attn_sinks": "blk.*.attn_sinks.weight",
    },
    gguf_defaults=dict(gpt_oss.ARCHITECTURE.gguf_defaults) | {"rope.scaling.type": "yarn"},
    mixture_presence={"interleaved": "blk.0.ffn_gate_up_exps.weight"},
)
