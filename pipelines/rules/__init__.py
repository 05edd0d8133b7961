"""One rule, one small pure function from text to a score."""
