"""The likeliest next tokens, and how likely a text is: python examples/logits.py [MODEL] [TEXT]"""

import sys

import numpy as np

import lacewing


def main(model: str = "smollm2", text: str = "The capital of France is") -> None:
    with lacewing.load(model) as loaded:
        ids = loaded.tokenizer.encode_prompt(text)
        logits = loaded.logits(ids)  # (T, V)
        logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)  # (T, V)
        for token in np.argsort(-logprobs[-1])[:5]:
            print(f"{np.exp(logprobs[-1, token]):6.1%}  {loaded.tokenizer.token_text(int(token))!r}")
        seen = logprobs[np.arange(len(ids) - 1), ids[1:]]  # (T - 1,)
        print(f"perplexity of the text: {np.exp(-seen.mean()) if len(seen) else float('nan'):.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
