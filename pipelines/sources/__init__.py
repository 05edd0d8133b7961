"""One reader a file: from bytes as they were fetched to documents."""
