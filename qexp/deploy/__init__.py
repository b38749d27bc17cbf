"""Leaving torch: ONNX files, the runtimes that execute them, and how fast they do."""
