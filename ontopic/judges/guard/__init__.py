"""The guard: a judge in the request path, before generation and after it; and its card."""
