"""Checkpoints: the chief alone touches the disk, beside the training; the others have its state over the network.

``checkpoints`` is what a training calls; ``chief`` the part of it that sees the disk, by way of ``store``, ``disk`` and
``lock``; ``state`` the variables, ``contents`` the files' content, ``export`` the model for others. ``saving``, ``rhythm`` and
``position`` are values, and import neither TensorFlow nor NumPy.
"""
