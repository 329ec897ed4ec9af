"""The engines that run a model, with one interface: ONNX Runtime and TensorRT."""
