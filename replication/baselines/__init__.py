"""Methods that the networks are compared with; each has ``expand(ldr, …) -> float32 HDR``."""
