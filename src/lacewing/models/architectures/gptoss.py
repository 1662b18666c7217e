"""gpt-oss as Ollama stores it: some names of its own, gate and up by turns in one weight, no word on the kind of RoPE scaling.

Reference: Ollama's model/models/gptoss and convert/convert_gptoss.go.
"""

from dataclasses import replace

from lacewing.models.architectures import gpt_oss

ARCHITECTURE = replace(
    gpt_oss.ARCHITECTURE,
    name="gptoss",
    gguf_names={
        "attn_out.weight": "attn_output.weight",
        "attn_out.bias": "attn_output.bias",
        "ffn_norm.weight": "post_attention_norm.weight",
        "attn_sinks": "attn_sinks.weight",
    },
    gguf_defaults=dict(gpt_oss.ARCHITECTURE.gguf_defaults) | {"rope.scaling.type": "yarn"},
    mixture_presence={"interleaved": "blk.0.ffn_gate_up_exps.weight"},
)
