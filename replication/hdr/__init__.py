"""From a stack of exposures to a radiance map, and from there to a picture and to files."""
