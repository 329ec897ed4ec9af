"""Work on many cores or machines with Ray: score an archive, fine-tune many parts."""
