"""The repair that lets Keras 3 fit across workers. ``boot.py`` loads it under a private name, once Keras is imported.

So what is in here imports its neighbours relative to itself: ``worker`` may be the name of a module of the program's.
"""
