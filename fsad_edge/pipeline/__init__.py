"""The jobs as functions: fine-tune on normal images, export a model file, evaluate it."""
