"""OpenAI's endpoints: chat, completions, embeddings, models. Typed requests, streams and errors as its clients expect them."""
