"""From a model directory to one ONNX file: needs the ``train`` extra."""
