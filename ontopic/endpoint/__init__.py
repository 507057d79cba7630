"""The client of OpenAI-compatible LLM servers."""
