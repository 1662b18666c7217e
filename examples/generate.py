"""Continue a text: python examples/generate.py [MODEL] [TEXT]"""

import sys

import lacewing


def main(model: str = "smollm2", text: str = "Once upon a time") -> None:
    with lacewing.load(model) as loaded:
        print(text, end="")
        for piece in loaded.stream(text, max_tokens=40, temperature=0.7, seed=1):
            print(piece, end="", flush=True)
        print(f"\n{loaded.stats['generate_tokens_per_second']} tokens/s")


if __name__ == "__main__":
    main(*sys.argv[1:])
