"""The service under load: what it costs over the bare runtime, what it refuses, what it keeps."""
