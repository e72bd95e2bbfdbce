"""The training loop, its batch plan and its optimizers."""
