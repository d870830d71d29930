"""Experiments: runs, sweeps, the training loop, and the queue that works them off."""
