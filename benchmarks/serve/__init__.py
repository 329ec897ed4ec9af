"""The service under load: its cost over the bare runtime, what it refuses, its memory."""
