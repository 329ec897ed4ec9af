"""From an exported file to where it runs: TensorRT engines and Triton model repositories."""
