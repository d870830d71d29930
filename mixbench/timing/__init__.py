"""``mixbench time``: what mixing costs, measured in a process of its own as training has it, see `request.measured`."""
