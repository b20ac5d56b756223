"""A federation of real Flower processes on one machine, to try one."""
