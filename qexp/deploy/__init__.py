"""ONNX export, the runtimes that execute exported graphs, and measurements of their speed."""
