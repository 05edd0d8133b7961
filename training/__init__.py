"""Tokenizer, model, the training loop, pretraining, fine-tuning and export."""
