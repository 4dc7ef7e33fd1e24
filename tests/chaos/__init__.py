"""Everything goes wrong with a real training, at any moment: what is promised for it is held against what happens."""
