"""The OpenAI-compatible endpoint: Ray Serve with vLLM."""
