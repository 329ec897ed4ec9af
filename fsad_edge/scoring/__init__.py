"""The scoring graph, put together in ONNX with numpy alone: no PyTorch and no ``onnx`` package."""
