"""What every part of the house stands on: the one command line, files, images, and the record of a measurement.

It imports neither torch nor any inference library, so the runtime may use it too.
"""
