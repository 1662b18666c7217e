"""Ask two questions in one conversation: python examples/chat.py [MODEL]"""

import sys

import lacewing

QUESTIONS = ("Name a fruit.", "What colour is it?")


def main(model: str = "smollm2") -> None:
    messages: list[dict[str, str]] = []
    with lacewing.load(model) as loaded:
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            answer = ""
            for delta in loaded.chat(messages, max_tokens=40, temperature=0):
                answer += delta
            messages.append({"role": "assistant", "content": answer})
            print(f"You: {question}\nModel: {answer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
