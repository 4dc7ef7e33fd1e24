"""Slurm: what an allocation holds, what its controller says, and how a job is written down. How agents start: ``engines/slurm.py``."""
