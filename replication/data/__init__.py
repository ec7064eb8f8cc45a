"""Data: exposure values, a virtual camera, exposure stacks, training patches and fetching."""
