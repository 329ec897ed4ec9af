"""The service under load: its cost over the bare runtime, what it refuses, what it keeps in memory."""
