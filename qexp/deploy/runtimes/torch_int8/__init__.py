"""Runtime that executes an exported graph as a torch module, with real integer products."""
