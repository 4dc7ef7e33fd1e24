"""What runs inside every worker process of a cluster: the boot of a script, and ready-made training.

``python -m worker digits`` trains in whatever cluster ``TF_CONFIG`` describes, or alone when there is none. Importing
this package imports neither TensorFlow nor anything else.
"""
