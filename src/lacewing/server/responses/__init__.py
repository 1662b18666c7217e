"""OpenAI's responses: answers that are kept, go on from each other, run in the background, and belong to conversations."""
