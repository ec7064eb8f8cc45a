"""Deep Chain HDRI (Lee, An, Kang 2018), replicated: one photo in, an HDR image out."""

__version__ = "0.1.0"
