"""The exported graph: built from an encoder, compared with torch, rewritten in other precisions."""
