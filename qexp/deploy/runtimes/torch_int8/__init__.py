"""An exported graph as a module of torch, with its integer products as products of integers."""
