"""Arrays as the bytes of image files, for several test files."""

import io
import struct
import zlib

import tifffile
from PIL import Image


def encoded(array, kind="PNG", mode=None, **options):
    """What Pillow writes."""
    file, image = io.BytesIO(), Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def tif(array, **options):
    """What tifffile writes."""
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def png_header(width, height, bits=8, colour=0, body=b""):
    """A png that announces a size, whatever its body holds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
