"""Caffe's files: net definitions (prototxt), weights (caffemodel) and solver states, read and written.

`caffe_pb2.py` is generated from `caffe.proto`, where the command stands.
"""

from reference.caffe.prototxt import load_prototxt, net_from_text, net_to_text, save_prototxt
from reference.caffe.solverstate import load_solverstate, save_solverstate
from reference.caffe.weights import load_caffemodel, read_caffemodel, save_caffemodel

__all__ = [
    "load_caffemodel",
    "load_prototxt",
    "load_solverstate",
    "net_from_text",
    "net_to_text",
    "read_caffemodel",
    "save_caffemodel",
    "save_prototxt",
    "save_solverstate",
]
