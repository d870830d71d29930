"""What mixing costs: measurements as runs, which `mixbench time` asks for, and sweeps that ``set: {task: time}``."""
