"""Net -> deployable file: the ONNX graph with Caffe's names, verified against PyTorch before it appears."""
