"""UNet++ from the ground up: the small package behind the lessons. Import what you need from its modules."""

__version__ = "0.1.0"
