"""The engines that run a model, behind one interface: ONNX Runtime and TensorRT."""
