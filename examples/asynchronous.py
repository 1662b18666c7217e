"""Answer several questions at once in an event loop: python examples/asynchronous.py [MODEL]"""

import asyncio
import sys

import lacewing

QUESTIONS = ("Name a fruit.", "Name a river.", "Name a colour.", "Name a planet.")


async def ask(model: lacewing.Model, question: str) -> str:
    """One answer, piece by piece. A task that is cancelled here ends its request as well."""
    answer = model.achat([{"role": "user", "content": question}], max_tokens=24, temperature=0)
    text = ""
    async for delta in answer:
        text += delta
    return f"{question} {text.strip()} ({answer.stats.generated_tokens} tokens)"


async def main(name: str = "smollm2") -> None:
    with lacewing.load(name, sequences=len(QUESTIONS)) as model:  # that many run together
        for line in await asyncio.gather(*(ask(model, question) for question in QUESTIONS)):
            print(line)
        try:
            await asyncio.wait_for(ask(model, "Tell me a story."), timeout=0.05)
        except TimeoutError:
            print("That took too long, and was cancelled.")
        print(await model.agenerate(["One, two,", "Monday, Tuesday,"], max_tokens=8, temperature=0))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
