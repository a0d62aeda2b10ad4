"""A slow, literal implementation of METHOD, which serves as the reference for the library's tests."""
