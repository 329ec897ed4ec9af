"""What runs on many cores or many machines, with Ray: archives scored, parts fine-tuned."""
