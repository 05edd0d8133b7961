"""Raw documents to clean corpus to packed tokens, on Ray Data."""
