"""Caffe's files: net definitions (prototxt) and weights (caffemodel), read and written.

`caffe_pb2.py` is generated from `caffe.proto`, where the command stands.
"""

from reference.caffe.prototxt import load_prototxt, net_from_text, net_to_text, save_prototxt
from reference.caffe.weights import load_caffemodel, read_caffemodel, save_caffemodel

__all__ = [
    "load_caffemodel",
    "load_prototxt",
    "net_from_text",
    "net_to_text",
    "read_caffemodel",
    "save_caffemodel",
    "save_prototxt",
]
