"""The far side: what runs on every host, this one included.

Standard library only, and nothing of ``launcher`` outside this folder: the agent travels to hosts that have neither.
It imports little, because its start is part of everybody's waiting time.
"""
