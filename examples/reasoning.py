"""Ask with thoughts shown apart, then continue an answer that was begun: python examples/reasoning.py [MODEL]"""

import sys

import lacewing

QUESTION = "A pen and a notebook cost 11 euros. The notebook costs 10 euros more than the pen. What does the pen cost?"


def main(model: str = "smollm2") -> None:
    messages = [{"role": "user", "content": QUESTION}]
    with lacewing.load(model) as loaded:
        answer = loaded.chat(messages, reasoning_effort="low", reasoning_budget=64, max_tokens=120, temperature=0)
        for delta in answer:  # a string of visible text; thoughts stand beside it
            print(f"\033[2m{delta.reasoning}\033[0m" if delta.reasoning else delta, end="", flush=True)
        print(f"\n[{answer.finish_reason}, {len(answer.tokens)} tokens]")

        messages += [answer.message, {"role": "user", "content": "Answer in one word."}]
        begun = {"role": "assistant", "content": "It costs"}
        rest = loaded.chat([*messages, begun], continue_final=True, max_tokens=12, temperature=0)
        print(begun["content"] + "".join(rest))


if __name__ == "__main__":
    main(*sys.argv[1:])
